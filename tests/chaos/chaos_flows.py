"""The flows of the chaos rounds; they run under Prefect 2.20 and 3.

Each body appends one line to the file `mark`, first of all and in one write; each hook one to `mark` + ".hooks".
"""

import os
import signal
import subprocess
import sys
import time
from typing import Any

from prefect import flow

LEAVER = """
import os, subprocess, sys
if os.fork(): os._exit(0)
os.setsid()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]], start_new_session=True)
"""


def append(path: str, line: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, line.encode())
    os.close(file)


def began(mark: str) -> None:
    append(mark, f"{os.environ.get('RUNNERD_RUN_ID')} {os.getpid()}\n")


def cancelled_hook(flow: Any, flow_run: Any, state: Any) -> None:
    append(flow_run.parameters["mark"] + ".hooks", "on_cancellation\n")


def crashed_hook(flow: Any, flow_run: Any, state: Any) -> None:
    append(flow_run.parameters["mark"] + ".hooks", "on_crashed\n")


hooked = flow(on_cancellation=[cancelled_hook], on_crashed=[crashed_hook])


@flow
def quick(mark: str) -> None:
    began(mark)


@flow
def limited(mark: str) -> None:
    began(mark)


@flow
def raises(mark: str) -> None:
    began(mark)
    raise ValueError("on purpose")


@hooked
def exits(mark: str) -> None:
    began(mark)
    os._exit(7)


@flow
def segv(mark: str) -> None:
    began(mark)
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(600)


@flow
def sleeps(mark: str) -> None:
    began(mark)
    time.sleep(600)


@flow
def overruns(mark: str) -> None:
    began(mark)
    time.sleep(600)


@hooked
def stubborn(mark: str) -> None:
    """Ignores SIGTERM, as code in a C library does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    began(mark)
    end = time.monotonic() + 600
    while time.monotonic() < end:
        time.sleep(1)


@flow
def leaves(mark: str) -> None:
    """Leaves processes behind, each in a session of its own."""
    began(mark)
    subprocess.run([sys.executable, "-c", LEAVER, mark], check=True)


@hooked
def leads(mark: str) -> None:
    """The same, and is cancelled meanwhile."""
    subprocess.run([sys.executable, "-c", LEAVER, mark], check=True)
    began(mark)
    time.sleep(600)
