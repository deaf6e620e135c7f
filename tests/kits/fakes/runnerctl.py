"""The real runnerctl, as the process that people start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.kits.fakes.serving import Serving

COMMAND = (sys.executable, "-m", "runnerd.cli")
PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Result:
    status: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """Ours, without what changes runnerctl's mind."""
    mind = {"RUNNERD_SOCKET", "NO_COLOR", "COLUMNS", "XDG_RUNTIME_DIR"}
    return {key: value for key, value in os.environ.items() if key not in mind} | {"TERM": "xterm"} | more


def runnerctl(served: Serving | None, *arguments: str, stdin: str = "", **env: str) -> Result:
    """To its end; against `served`, or wherever `env` leads."""
    if served is not None:
        env = {"RUNNERD_SOCKET": served.socket} | env
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin.encode(),
        capture_output=True,
        timeout=PATIENCE_S,
        env=environment(**env),
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def heeding_ctrl_c() -> Iterator[None]:
    """What is started in this block heeds SIGINT, though we may be a background job, which a shell makes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def started(served: Serving, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """In the background until the block is left, in a process group of its own: a Ctrl-C is meant for it alone."""
    with heeding_ctrl_c():
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(RUNNERD_SOCKET=served.socket),
            process_group=0,
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[bytes]) -> Result:
    out, err = process.communicate(timeout=PATIENCE_S)
    return Result(process.returncode, (out or b"").decode(), err.decode())


def until_said(process: subprocess.Popen[bytes], words: bytes) -> bytes:
    """Read standard error until `words` were said; what was read."""
    assert process.stderr is not None
    said = b""
    while words not in said:
        line = process.stderr.readline()
        assert line, f"{words!r} was never said, only {said!r}"
        said += line
    return said
