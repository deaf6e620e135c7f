"""The kernel's own log and its own killing for memory."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from runnerd.spawner.cgroups.oom import KernelLog
from tests.kits.cgroup import bounded_cgroup, eater_in, skip_without_kernel_log


@pytest.fixture
def kernel_log() -> Iterator[KernelLog]:
    skip_without_kernel_log()
    log = KernelLog.open()
    yield log
    log.close()


def test_it_names_what_it_killed(kernel_log: KernelLog) -> None:
    since = kernel_log.next_number()
    with bounded_cgroup() as directory:
        eater = subprocess.Popen(eater_in(directory))
        assert eater.wait(60) == -signal.SIGKILL
    assert kernel_log.has_killed(eater.pid, since) is True
    # A run that gets this pid from here on was not killed.
    assert kernel_log.has_killed(eater.pid, kernel_log.next_number()) is False
    late = KernelLog.open()
    assert late.has_killed(eater.pid, since) is True
    late.close()


def test_it_does_not_name_what_we_killed(kernel_log: KernelLog) -> None:
    since = kernel_log.next_number()
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"])
    child.kill()
    assert child.wait(60) == -signal.SIGKILL
    assert kernel_log.has_killed(child.pid, since) is False
