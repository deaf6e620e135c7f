"""Run a helper: a short process that answers a question, such as which parameters a flow has, as a given user.

No record and no file of a helper is left afterwards. A helper that outlives its daemon is recognised by its key, and
ended by the next daemon (runs/adopting.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from dataclasses import dataclass
from typing import NamedTuple

from runnerd.core.process import LaunchSpec
from runnerd.files.regular import read_start
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import Record

HELPER_KEY_PREFIX = "inspect-"
_LAST_LINE_MAX_CHARACTERS = 200
_OUTPUT_MAX_BYTES = 65536
ANSWER_MAX_BYTES = 16 * 2**20


class HelperNames(NamedTuple):
    """Names for the launch spec of one helper: its key, its output file and the file for its answer."""

    key: str
    output: str
    result: str


def name_helper(work_dir: str) -> HelperNames:
    """Make a key that no other helper has, and the paths of its files in `work_dir`."""
    key = f"{HELPER_KEY_PREFIX}{uuid.uuid4()}"
    return HelperNames(key, os.path.join(work_dir, f"{key}.log"), os.path.join(work_dir, f"{key}.result"))


@dataclass(frozen=True, slots=True)
class HelperOutcome:
    """What a helper left: its last record (None when the spawner lost it), its answer and its output."""

    record: Record | None
    answer: str
    output: str


async def run_helper(spec: LaunchSpec, *, link: SpawnerLink, answer_max: int = ANSWER_MAX_BYTES) -> HelperOutcome:
    """Start a helper, wait for its end and delete its files. Raises SpawnerError when the spawner refuses the spec.

    The answer is cut to `answer_max` bytes: it is a file that the helper's user may make as long as he likes.
    """
    assert spec.result is not None
    try:
        record = await link.run_to_end(spec)
        await link.forget(spec.key, spec.attempt)
        answer = await asyncio.to_thread(_read, spec.result, answer_max)
        return HelperOutcome(record, answer, await asyncio.to_thread(_read, spec.output, _OUTPUT_MAX_BYTES))
    finally:
        for path in (spec.output, spec.result):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def last_line(output: str) -> str | None:
    """Return the last line that is not empty: where a Python traceback has its error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:_LAST_LINE_MAX_CHARACTERS] if lines else None


def _read(path: str, max_bytes: int) -> str:
    """Read the start of a file in a directory of the daemon's own; nothing of what is no regular file."""
    try:
        return read_start(path, max_bytes=max_bytes, flags=os.O_RDONLY | os.O_NOFOLLOW).decode("utf-8", "replace")
    except OSError:
        return ""
