"""Flows for tests; they run under Prefect 2.20 and 3."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from prefect import flow


@flow(log_prints=True)
def greet(name: str = "world", times: int = 1) -> str:
    print(f"hello {name}" * times)
    return name


@flow
def fail() -> None:
    raise ValueError("on purpose")


@flow
def leave(code: int = 7) -> None:
    os._exit(code)


@flow
def sleep(seconds: float = 600, mark: str = "") -> None:
    if mark:
        with open(mark, "a") as file:
            file.write(f"{os.getpid()}\n")
    time.sleep(seconds)


@flow
def family(mark: str) -> None:
    """Has a child and a grandchild that would outlive it."""
    child = subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '600'])"])
    time.sleep(1)
    Path(mark).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


@flow
def stubborn(mark: str) -> None:
    """Ignores SIGTERM, as code in a C library does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(mark).write_text(str(os.getpid()))
    end = time.monotonic() + 600
    while time.monotonic() < end:
        time.sleep(1)


@flow(log_prints=True)
def who() -> None:
    print(f"uid={os.getuid()} umask={os.umask(0):o} nice={os.nice(0)} cwd={os.getcwd()}")
    print("env=" + ",".join(sorted(os.environ)))


@flow
def escapes(mark: str, stay: bool = False) -> None:
    """Leaves one behind that called setsid, and one that daemonized as the book has it."""
    sleep = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()} '); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", sleep, mark], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            os.closerange(0, 1024)
            os.execve(sys.executable, [sys.executable, "-I", "-c", sleep, mark], {})
        os._exit(0)
    while not os.path.exists(mark) or len(Path(mark).read_text().split()) < 2:
        time.sleep(0.05)
    if stay:
        time.sleep(600)


@flow
def parent(child: str) -> None:
    """Waits for a run of another deployment, which may wait for this one's slot."""
    from prefect.deployments import run_deployment

    run_deployment(child, poll_interval=1)
