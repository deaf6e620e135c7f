"""Flows of the machines under test."""

import os
import signal
import sys
import time

from prefect import flow

GO = "/tmp/go"


@flow(log_prints=True)
def waits() -> None:
    """Until somebody makes the file."""
    print("waits begins")
    while not os.path.exists(GO):
        time.sleep(0.1)
    print("waits ends")


@flow
def naps(seconds: float = 600.0) -> None:
    time.sleep(seconds)


@flow
def ignores() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open("/tmp/ignoring", "w").close()
    time.sleep(600)


@flow
def speaks() -> None:
    print("a word from the flow")
    print("a word for stderr", file=sys.stderr)
    print("its key:", os.environ.get("PREFECT_API_KEY", "none"), len(os.environ.get("NOTIFY_SOCKET", "")))


@flow
def eats() -> None:
    """Memory, in a child of its own as well."""
    if os.fork() == 0:
        time.sleep(600)
    hoard = []
    while True:
        hoard.append(b"x" * 2**20)


@flow
def crashes() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
