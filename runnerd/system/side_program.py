"""The other end of a SideProcess: reads requests from stdin, computes the answers, writes them to stdout.

Invariants: before the first request the process has its limits; each request has `cpu_s` seconds of processor time, by
SIGPROF, also when the daemon is gone meanwhile; the process ends with its stdin. Standard library only, and little of
it: this is imported at each start.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
from collections.abc import Callable
from typing import NamedTuple

HEAD = struct.Struct(">I")  # the length of what follows
ANSWER_MAX_BYTES = 4 * 2**20
NO_MEMORY = b"!"  # an answer that is no JSON
_FILES_MAX = 64


class Limits(NamedTuple):
    """The limits of the process; `cpu_s` for each request."""

    cpu_s: int
    memory_bytes: int


def serve(answer: Callable[[bytes], bytes], limits: Limits) -> None:
    """Answer requests until stdin ends."""
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, _FILES_MAX)
    while len(head := _read(HEAD.size)) == HEAD.size:
        request = _read(HEAD.unpack(head)[0])
        signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)  # RLIMIT_CPU counts whole seconds, and since the start
        try:
            result = answer(request)
        except MemoryError:
            result = NO_MEMORY
        signal.setitimer(signal.ITIMER_PROF, 0)
        _write(HEAD.pack(len(result)) + result)


def _limit(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (bound, bound))


def _read(size: int) -> bytes:
    """Read so many bytes from stdin; fewer at its end."""
    data = bytearray()
    while len(data) < size and (block := os.read(0, min(size - len(data), 2**20))):
        data += block
    return bytes(data)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
