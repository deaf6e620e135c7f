"""A short process that answers a question: the spawner runs it as its user, and nothing of it is left.

Invariant: should the daemon end meanwhile, the next one knows it by its key and clears it away (runs/adopting.py).
"""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from typing import NamedTuple

from runnerd.core.process import LaunchSpec
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import Record

KEY_PREFIX = "inspect-"
_LINE_MAX = 200
_OUTPUT_MAX = 65536  # characters; more than any message takes


class ErrandPaths(NamedTuple):
    """What a new errand's launch spec is to name: what it prints goes to `output`, its answer to `result`."""

    key: str
    output: str
    result: str


def new_errand(work_dir: str) -> ErrandPaths:
    """Of one that no other has; its files stand in `work_dir` for as long as they are read."""
    key = f"{KEY_PREFIX}{uuid.uuid4()}"
    return ErrandPaths(key, os.path.join(work_dir, f"{key}.log"), os.path.join(work_dir, f"{key}.result"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """`record` tells how it ended, None where the spawner lost it."""

    record: Record | None
    answer: str
    output: str


async def run_errand(spec: LaunchSpec, *, link: SpawnerLink, answer_max: int = -1) -> Outcome:
    """Start it and wait for its end; of its answer no more than `answer_max` characters. Raises SpawnerError."""
    assert spec.result is not None
    try:
        seen = await link.complete(spec)
        await link.forget(spec.key, spec.attempt)
        return Outcome(seen, _read(spec.result, answer_max), _read(spec.output, _OUTPUT_MAX))
    finally:
        for path in (spec.output, spec.result):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def last_line(output: str) -> str | None:
    """The last thing it printed, which is where errors stand."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:_LINE_MAX] if lines else None


def _read(path: str, at_most: int) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(at_most)
    except OSError:
        return ""
