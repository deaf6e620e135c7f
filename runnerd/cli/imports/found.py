"""Holds what an import has found: entries of a drop-in, and what no entry can say."""

from __future__ import annotations

from dataclasses import dataclass, field

from runnerd.core.errors import RunnerdError
from runnerd.core.place import Json


class ImportRefused(RunnerdError):
    """Says why nothing can be imported; `status` is 404 where there is no such file or unit."""

    def __init__(self, message: str, *, status: int = 0, detail: str = "") -> None:
        super().__init__(message)
        self.status = status or -1
        self.detail = detail  # a traceback of the script's, several lines


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that is not carried over; `place` is where the original says it, as FILE:LINE."""

    message: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(slots=True)
class Found:
    """The entries, as in a drop-in, and what was left out, in the order of the original."""

    deployments: list[dict[str, Json]] = field(default_factory=list)
    pools: list[dict[str, Json]] = field(default_factory=list)
    automations: list[Json] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def leave_out(self, place: str, message: str) -> None:
        one = LeftOut(message, place)
        if one not in self.left_out:
            self.left_out.append(one)


@dataclass(slots=True)
class Surroundings:
    """In what a command is run: by its unit, its crontab or this shell.

    `run` has keys of a run: section. `environment` is what a script is read in besides, `place` where the command is
    written.
    """

    place: str
    directory: str
    run: dict[str, Json] = field(default_factory=dict)
    user: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    environment_files: list[str] = field(default_factory=list)
    python: str | None = None

    def run_section(self, python: str | None) -> dict[str, Json]:
        """Return the run: section of an entry whose interpreter is `python`.

        Root is left out, so that the flows get the user that the host has for them.
        """
        user = self.user if self.user != "root" else None
        said: dict[str, Json] = {"python": python, "user": user, **self.run}
        if self.environment:
            said["environment"] = dict(self.environment)
        if self.environment_files:
            said["environment_file"] = self.environment_files[0]
        return {key: value for key, value in said.items() if value is not None}
