"""Say whether a run may be forked of a warm interpreter, by both launch specs. Pure.

A fork has the interpreter's user, groups, program and start variables, and cannot change them.
"""

from __future__ import annotations

from runnerd.spawner.io.messages import Launch
from runnerd.spawner.warm.fixed_at_start import fixed_at_start

_NAMED_VARIABLES = 3
# What may follow the python in argv: the commands of runs of pools, and of the host's own deployments.
FORKED_COMMANDS = (
    ["-m", "prefect.engine"],
    ["-c", "import os; exec(os.environ.pop('RUNNERD_PROGRAM'))", "prefect.engine"],
)


class Origin:
    """What of an interpreter's launch spec its forks share."""

    __slots__ = ("_account", "_fixed", "_python")

    def __init__(self, launch: Launch) -> None:
        self._account = (launch.user, launch.group, launch.own)
        self._python = launch.argv[0]
        self._fixed = fixed_at_start(launch.environment)

    def refuse(self, launch: Launch) -> str | None:
        """Say why a run with this launch spec cannot be a fork; None if it can."""
        if launch.argv[1:] not in FORKED_COMMANDS:
            return "the run's command is not Prefect's engine"
        if (launch.user, launch.group, launch.own) != self._account or launch.argv[0] != self._python:
            return "has another user, group or python than the run"
        fixed = fixed_at_start(launch.environment)
        differing = sorted(name for name, _ in set(fixed.items()) ^ set(self._fixed.items()))
        if differing:
            named = ", ".join(dict.fromkeys(differing[:_NAMED_VARIABLES]))
            return f"was started with another value of {named} than the run has"
        return None
