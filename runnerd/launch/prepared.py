"""The contract of the launchers: how one makes a launch spec from a run's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.process import LaunchSpec
from runnerd.files.bounded_calls import Unanswered


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a launcher made of a run's record.

    `start`: the launch spec, or a sentence why the run cannot be started, or what did not answer and may answer later,
    as a sentence. `user`: the account that the process will
    run as, never taken from the run's environment, because the API may have set that. `record_fields`: fields to
    update in the run's record.
    """

    start: LaunchSpec | str | Unanswered
    user: str | None = None
    record_fields: Mapping[str, Json] = field(default_factory=dict)


class HookLauncher(Protocol):
    """Makes the launch spec of a run's hooks, or says why they cannot be started: Unanswered where later they may."""

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered: ...


class Launcher(HookLauncher, Protocol):
    """Makes the launch spec of a run, or a sentence why the run cannot be started. May raise ApiError."""

    async def prepare(self, record: RunRecord) -> Prepared: ...


class Launchers:
    """Passes a run's record to the launcher for this host's own deployments or to the one for work pools."""

    def __init__(self, *, own: Launcher, pools: Launcher) -> None:
        self._own = own
        self._pools = pools

    async def prepare(self, record: RunRecord) -> Prepared:
        return await (self._own if record.pool is None else self._pools).prepare(record)

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        return await (self._own if record.pool is None else self._pools).prepare_hooks(record)
