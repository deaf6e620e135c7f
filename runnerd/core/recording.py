"""Holds what is known of a script that serves flows, as its own interpreter has said it: nothing of it is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runnerd.core.place import Json


@dataclass(frozen=True, slots=True)
class Said:
    """Something about a script, with the line that it is about; None for the whole script."""

    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """One deployment that a script serves: its entry as in a drop-in, and the line that makes it."""

    entry: Mapping[str, Json]
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What a script serves; `left_out` has no equivalent in an entry. `dependencies`: stamps by path."""

    prefect_version: str
    served: tuple[Served, ...]
    left_out: tuple[Said, ...] = ()
    dependencies: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFailure:
    """Why it is not known what a script serves; `said.message` is one line for an administrator."""

    said: Said
    kind: str = "no-answer"
    traceback_tail: str = ""


Recorded = Recording | RecordingFailure
