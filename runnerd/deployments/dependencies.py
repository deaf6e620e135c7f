"""Compares what an inspection depends on with what there is now, by stamps of files and directories.

Invariant: nothing is opened, and nothing is asked of the file system in the event loop. A file that this user may not
see counts as unknown: a reload inspects again, the watch over changes does not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

from runnerd.core.prefect import Inspection
from runnerd.core.settings import Deployment
from runnerd.files.bounded_calls import BoundedCalls, Unanswered

_ABSENT = "absent"
_COMPARED_PER_CALL = 50


class Change(Enum):
    """Whether what an inspection depends on is still the same."""

    NONE = auto()
    SOME = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Inspected:
    """A deployment with the inspection of its flow; `stamps` are those of the inspection's dependencies."""

    deployment: Deployment
    stamps: Mapping[str, str] | None

    @classmethod
    def by(cls, inspection: Inspection, deployment: Deployment) -> Inspected:
        """Make one of an inspection."""
        return cls(deployment, inspection.dependencies)


async def compare_all(inspected: Iterable[Inspected], *, calls: BoundedCalls) -> list[tuple[Inspected, Change]]:
    """Compare the dependencies of each, in a thread for each working directory."""
    by_place: dict[str, list[Inspected]] = {}
    for one in inspected:
        by_place.setdefault(one.deployment.run.working_directory, []).append(one)
    found: list[tuple[Inspected, Change]] = []
    for place, ones in by_place.items():
        for start in range(0, len(ones), _COMPARED_PER_CALL):
            few = ones[start : start + _COMPARED_PER_CALL]
            changes = await calls.call(place, partial(_compare, few))
            found += zip(few, [Change.UNKNOWN] * len(few) if isinstance(changes, Unanswered) else changes, strict=True)
    return found


def read_stamp(path: str) -> str | None:
    """Return the stamp of a file or directory as programs/inspect_flow.py makes it; None where that is forbidden.

    Not for the event loop.
    """
    try:
        about = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return _ABSENT
    except (OSError, ValueError):
        return None
    of_file = f"{about.st_mtime_ns} {about.st_size} {about.st_ino}"
    return of_file if stat.S_ISREG(about.st_mode) else f"{about.st_mtime_ns}"


def _compare(inspected: Iterable[Inspected]) -> list[Change]:
    now: dict[str, str | None] = {}

    def change(stamps: Mapping[str, str] | None) -> Change:
        if stamps is None:
            return Change.SOME
        now.update({path: read_stamp(path) for path in stamps if path not in now})
        if any(now[path] not in (None, stamp) for path, stamp in stamps.items()):
            return Change.SOME
        return Change.UNKNOWN if any(now[path] is None for path in stamps) else Change.NONE

    return [change(one.stamps) for one in inspected]
