"""A process for side_process.py's tests: does what the request says."""

from __future__ import annotations

import os
import sys
import time

from runnerd.system.side_program import Limits, serve

LIMITS = Limits(cpu_s=1, memory_bytes=256 * 2**20)


def answer(request: bytes) -> bytes:
    match request.split(b" "):
        case [b"echo", *words]:
            return b" ".join(words)
        case [b"spin"]:
            while True:
                pass
        case [b"sleep"]:
            time.sleep(3600)
        case [b"eat"]:
            return b"x" * 2**40
        case [b"big"]:
            return b"x" * 2**23
        case [b"kill", number]:
            os.kill(os.getpid(), int(number))
        case [b"about"]:
            return about()
    raise ValueError(request)


def about() -> bytes:
    """What the process has of the daemon."""
    fds = [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
    try:
        written = os.write(os.memfd_create("x"), b"x")
    except OSError:
        written = 0
    return f"{sorted(map(int, fds))} {sorted(os.environ)} {written} {os.getcwd()} {sys.flags.isolated}".encode()


def main() -> None:
    serve(answer, LIMITS)
