"""A real daemon whose stderr is what systemd would give it: a stream of the journal's, or not."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.log.journald import SOCKET
from tests.kits.daemon import TERM, Host, eventually

NOBODY = "http://127.0.0.1:9/api"

no_journald = pytest.mark.skipif(Path(SOCKET).exists(), reason=f"there is a real journal at {SOCKET}")


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host(url=NOBODY, python=sys.executable)
    try:
        yield made
    finally:
        made.close()


def test_an_abort_leaves_a_traceback_of_every_thread_and_still_kills(host: Host) -> None:
    """What systemd's watchdog does to a daemon that hangs."""
    host.start()
    host.signal(signal.SIGABRT)
    assert host.wait() == -signal.SIGABRT
    said = host.said()
    assert "Fatal Python error: Aborted" in said
    assert re.search(r"^Current thread 0x\w+ .*most recent call first", said, re.MULTILINE), said
    assert re.search(r'^  File ".*__main__\.py", line \d+ in _serve$', said, re.MULTILINE), said


@no_journald
@pytest.mark.parametrize("named", [True, False])
def test_where_the_journals_socket_is_away_lines_carry_their_priority(host: Host, named: bool) -> None:
    """And only where the stream that is named is ours: the variable is inherited by whoever redirects us."""
    ours, theirs = socket.socketpair()
    facts = os.fstat(theirs.fileno())
    environ = {**host.environ, "JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino + (0 if named else 1)}"}
    with ours, theirs:
        host.process = subprocess.Popen(
            host.argv, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
        )
        theirs.close()
        ours.setblocking(False)
        said = b""

        def look() -> bool:
            nonlocal said
            try:
                said += ours.recv(65536)
            except BlockingIOError:
                return False
            return b"ready " in said

        eventually(look, "it to be ready")
        host.signal(TERM)
        host.wait()
    (line,) = [line for line in said.decode().splitlines() if "ready config=" in line]
    assert re.match(r"<6>ready " if named else r"\d{4}-\d\d-\d\dT", line), line
