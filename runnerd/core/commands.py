"""Holds what a command deployment is: its command line, and what decides how a run of it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from runnerd.core.place import Json

StdinKind = Literal["none", "parameters"]
SHELL = ("/bin/sh", "-c")
STDIN_SUFFIX = ".stdin"  # of an output file's name: what the command reads
PROGRESS_SUFFIX = (
    ".sent"  # of an output file's name: how much of it the API has, until it has all (output/api_progress.py)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRules:
    """Holds what decides how a run of a command ends, and how often and how much later a failed one is retried."""

    success_exit_codes: tuple[int, ...] = (0,)
    retries: int = 0
    retry_delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Holds the command of a deployment that has no flow's code.

    `argv` may have `{{ name }}` of parameters, but not in its first item; of a shell line it is SHELL and the line.
    `parameter_schema` is a JSON Schema; None where the file has none.
    """

    argv: tuple[str, ...]
    shell: bool = False
    stdin: StdinKind = "none"
    parameter_schema: Mapping[str, Json] | None = None
    rules: CommandRules = field(default_factory=CommandRules)

    @property
    def line(self) -> str:
        """The command as one line, for people: placeholders as they are written."""
        return self.argv[-1] if self.shell else " ".join(self.argv)
