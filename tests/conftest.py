"""What every test gets: a time limit that names the place it hangs at, and a count of the processes left behind.

Neither needs a plugin. A hang is cut by SIGALRM, which Python delivers in the main thread whatever await or lock it
waits for; should that thread sit in C code that never returns, faulthandler prints every stack and ends the whole run.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FrameType

import psutil
import pytest
from hypothesis import HealthCheck, settings

TIME_LIMIT_S = 120.0
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))  # how long `make fuzz` has a target try
# For the examples that every run tries, on a busy machine, and for Hypothesis, which makes what it finds smaller for up
# to five minutes.
FUZZ_LIMIT_S = FUZZ_SECONDS + 900.0 if FUZZ_SECONDS else 0.0
TEARDOWN_S = 30.0  # what a test's own clean-up gets after its limit has passed
STUCK_S = 60.0  # after that a thread is beyond Python's reach
LEAVING_S = 5.0  # for what was just told to end
RUN_MARK = "RUNNERD_TEST_RUN"  # inherited by what a test starts, so that even its orphans are found

DEADLINE = pytest.StashKey[float]()
STDERR = pytest.StashKey[int]()
LEFT = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    # A busy machine is slow now and then; Hypothesis would call that the test's fault.
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")
    config.addinivalue_line("markers", f"time_limit(seconds): another limit than {TIME_LIMIT_S:g} s for this test")
    config.stash[STDERR] = os.dup(2)  # the real one: pytest captures descriptor 2 later
    os.environ[RUN_MARK] = uuid.uuid4().hex


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[STDERR])


# --- the time limit -----------------------------------------------------------------------------------------


@contextmanager
def limit(item: pytest.Item, left_s: float) -> Iterator[None]:
    def out_of_time(_signal: int, _frame: FrameType | None) -> None:
        faulthandler.dump_traceback(item.config.stash[STDERR])
        pytest.fail(f"{item.nodeid} took longer than its time limit; every thread's stack is on stderr")

    before = signal.signal(signal.SIGALRM, out_of_time)
    faulthandler.dump_traceback_later(left_s + STUCK_S, exit=True, file=item.config.stash[STDERR])
    # It rings again: the first failure may land in a `finally` that hangs as well.
    signal.setitimer(signal.ITIMER_REAL, left_s, TEARDOWN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    marker = item.get_closest_marker("time_limit")
    limit_s = float(marker.args[0]) if marker else max(TIME_LIMIT_S, FUZZ_LIMIT_S)
    item.stash[DEADLINE] = time.monotonic() + limit_s
    with limit(item, limit_s):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    with limit(item, max(item.stash[DEADLINE] - time.monotonic(), 0.001)):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    with limit(item, max(item.stash[DEADLINE] - time.monotonic(), TEARDOWN_S)):
        return (yield)


# --- nothing may be left ------------------------------------------------------------------------------------


def left_behind() -> list[psutil.Process]:
    """Our children at any depth, zombies among them, and whoever carries this run's mark in its environment."""
    found = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(RUN_MARK) == os.environ[RUN_MARK]:
                found.add(process)
        except psutil.Error:
            continue  # gone, or somebody else's
    return sorted(found, key=lambda process: process.pid)


def still_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def describe(process: psutil.Process) -> str:
    try:
        words = " ".join(process.cmdline())[:200] or process.name()
        return f"pid {process.pid}, parent {process.ppid()}, {process.status()}: {words}"
    except psutil.Error:
        return f"pid {process.pid}, gone since"


@pytest.hookimpl(trylast=True)  # after the last fixtures were torn down, before the summary is written
def pytest_sessionfinish(session: pytest.Session) -> None:
    left = left_behind()
    deadline = time.monotonic() + LEAVING_S
    while any(still_running(process) for process in left) and time.monotonic() < deadline:
        time.sleep(0.05)
        left = left_behind()
    session.config.stash[LEFT] = [describe(process) for process in left]
    for process in left:
        if still_running(process):
            process.kill()
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left = config.stash.get(LEFT, [])
    if left:
        terminalreporter.section("processes left behind by the tests (killed)", red=True)
        for line in left:
            terminalreporter.line(line)
