"""Positions in configuration files, and problems that an administrator has to fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# What JSON can say. `Any` because mypy has no recursive alias that callers can narrow cheaply.
Json = Any


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a configuration file; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something an administrator has to mend: what is wrong, where, and what would be right.

    `deployment` names the deployment it concerns, None when it concerns a whole file or the host.
    """

    message: str
    place: Place | None = None
    deployment: str | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message
