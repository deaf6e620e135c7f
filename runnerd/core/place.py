"""Positions in configuration files, and problems that an administrator has to fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MESSAGE_MAX = 1000  # characters

# Any JSON value. `Any` because mypy has no recursive alias that callers can narrow cheaply.
Json = Any


def printable(text: str) -> str:
    """Escape the characters of `text` that a terminal might execute or would not show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Holds a position in a configuration file; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Describes what an administrator has to fix: what is wrong, where, and what would be right.

    `deployment` names the deployment concerned; None for a problem of a whole file or of the host. `key` is the setting
    concerned, such as run.user; None where the problem is not one of a setting.
    """

    message: str
    place: Place | None = None
    deployment: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if len(self.message) > MESSAGE_MAX:  # it quotes a key or a value of the file
            object.__setattr__(self, "message", f"{self.message[:MESSAGE_MAX]}...")

    def __str__(self) -> str:
        """Return the problem in one line; a path or a name from a file may hold a terminal's control characters."""
        return printable(f"{self.place}: {self.message}" if self.place else self.message)


def problem_document(problem: Problem) -> Json:
    """Return the document of one problem and its place in the configuration."""
    return {"message": problem.message, **place_document(problem.place), "deployment": problem.deployment}


def place_document(place: Place | None) -> dict[str, Json]:
    """Return the members of a document that say where in the configuration something is."""
    return {
        "file": place.file if place else None,
        "line": place.line if place else None,
        "column": place.column if place else None,
    }
