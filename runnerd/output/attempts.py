"""Finds the output files of a run's attempts: each attempt that has started has one, named after its number.

Until its start, and for ever when it never starts, a record names the output of the attempt before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from runnerd.core.machine import Phase, RunRecord
from runnerd.files.regular import open_regular

ATTEMPTS_MAX = 100  # the newest; each costs a look at its file
_NUMBER = re.compile(r"\.\d+\.log$")


class AttemptOutput(NamedTuple):
    """The output of one attempt: what is stored of it, and whether its oldest part was removed (run.output_max)."""

    attempt: int
    stored_bytes: int
    cut: bool


def path_of_attempt(record: RunRecord, attempt: int) -> str | None:
    """Return the path of this attempt's output; None while no attempt of the run has started on this host."""
    return None if record.output is None else _NUMBER.sub(f".{attempt}.log", record.output)


def latest_path(record: RunRecord) -> str | None:
    """Return the path of the last attempt's output; None while the attempt under way has none yet."""
    if record.phase in (Phase.CLAIMING, Phase.STARTING) and record.output != path_of_attempt(record, record.attempt):
        return None
    return record.output


def attempt_paths(record: RunRecord) -> dict[int, str]:
    """Return the path of the output that each of the newest attempts may have."""
    numbers = range(max(1, record.attempt - ATTEMPTS_MAX + 1), record.attempt + 1)
    paths = {attempt: path_of_attempt(record, attempt) for attempt in numbers}
    return {attempt: path for attempt, path in paths.items() if path is not None}


def find_outputs(paths: Mapping[int, str]) -> list[AttemptOutput]:
    """List the outputs that exist, the oldest first. Blocks as long as the disk does."""
    found = []
    for attempt, path in sorted(paths.items()):
        try:
            descriptor = open_regular(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        except OSError:  # replaced by the flow's user, say: who reads it learns why that cannot be done
            found.append(AttemptOutput(attempt, 0, cut=False))
            continue
        try:
            size = os.fstat(descriptor).st_size
            begin = _first_data(descriptor, size)
        finally:
            os.close(descriptor)
        found.append(AttemptOutput(attempt, size - begin, cut=begin > 0))
    return found


def _first_data(descriptor: int, size: int) -> int:
    """Return the offset behind the hole at the file's front, which is punched to bound its size (output_bound.py)."""
    if size == 0:
        return 0
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError:  # ENXIO: only a hole
        return size
