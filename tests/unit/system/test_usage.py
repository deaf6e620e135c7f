"""usage.py: what the processes of runs use, measured once for all runs and for all who ask at the same time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.process import Identity
from runnerd.processes.protocol import boot_id
from runnerd.spawner.proc.identity import read_start_ticks
from runnerd.system import usage as usage_module
from runnerd.system.usage import MAX_AGE_S, Leader, Measured, Usage, UsageMeter, measure_usage
from tests.kits.nouns import NOON


def identity(pid: int) -> Identity:
    ticks = read_start_ticks(pid)
    assert ticks is not None
    return Identity(boot_id=boot_id(), pid=pid, start_ticks=ticks)


def leader(pid: int, *, cgroup: str = "run-none.1") -> Leader:
    return Leader(identity=identity(pid), cgroup=cgroup)


def used_by(one: Identity) -> Usage | None:
    return measure_usage([Leader(identity=one, cgroup="run-none.1")]).get(one)


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A process and its child, which has said something: at its start a process has no memory for a moment."""
    script = "sh -c 'echo $$; sleep 100; :' & wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True) as first:
        assert first.stdout is not None
        yield first.pid, int(first.stdout.readline())
        os.killpg(first.pid, signal.SIGKILL)


def test_what_a_process_and_its_children_use(family: tuple[int, int]) -> None:
    both = [leader(pid) for pid in family]
    found = measure_usage(both)
    whole, part = (found[one.identity] for one in both)
    assert whole.memory_bytes > part.memory_bytes > 0


def test_our_own_usage() -> None:
    used = used_by(identity(os.getpid()))
    assert used is not None
    assert used.memory_bytes > 2**20
    assert used.cpu_s > 0


def test_a_pid_alone_is_not_believed() -> None:
    ours = identity(os.getpid())
    assert used_by(replace(ours, start_ticks=ours.start_ticks + 10_000)) is None


def test_a_process_that_is_gone_uses_nothing() -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        gone = identity(process.pid)
        process.kill()
    assert used_by(gone) is None


# --- by cgroup ------------------------------------------------------------------------------------------------


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    """A cgroup's directory as the kernel shows it; no test needs to be root for that."""
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\n")
    (tmp_path / "memory.current").write_text("5000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1000000\n")
    return tmp_path


def test_a_cgroup_says_all_of_it(cgroup: Path) -> None:
    assert usage_module._usage_of_cgroup(str(cgroup)) == Usage(memory_bytes=4_000_000, cpu_s=1.5)


def test_without_the_memory_controller_the_processes_are_asked(cgroup: Path) -> None:
    (cgroup / "memory.current").unlink()
    (cgroup / "cgroup.procs").write_text(f"{os.getpid()}\n0\n")
    used = usage_module._usage_of_cgroup(str(cgroup))
    assert used is not None
    assert (used.cpu_s, used.memory_bytes > 2**20) == (1.5, True)


def test_a_cgroup_that_is_gone_is_none(cgroup: Path) -> None:
    assert usage_module._usage_of_cgroup(str(cgroup / "gone")) is None


def test_only_the_run_s_own_cgroup_counts(tmp_path: Path) -> None:
    mounted = [("/", str(tmp_path))]
    assert usage_module._cgroup_directory(os.getpid(), "run-none.1", mounted) is None


# --- the meter ------------------------------------------------------------------------------------------------


def a_meter(measure: Callable[[Sequence[Leader]], Measured] = measure_usage) -> UsageMeter:
    return UsageMeter(measure=measure, clock=asyncio.get_running_loop().time, now=lambda: NOON)


class Counted:
    """Measures, and counts how often."""

    def __init__(self) -> None:
        self.measures: list[int] = []

    def measure(self, leaders: Sequence[Leader]) -> dict[Identity, Usage]:
        self.measures.append(len(leaders))
        return measure_usage(leaders)


async def test_requests_at_the_same_time_share_one_measure() -> None:
    counted = Counted()
    meter, ours = a_meter(counted.measure), leader(os.getpid())
    assert (meter.usage_of(ours.identity), meter.measured_at) == (None, None)
    await asyncio.gather(*(meter.refresh([ours], boot_id=boot_id()) for _ in range(20)))
    await meter.refresh([ours], boot_id=boot_id())
    assert (counted.measures, meter.measured_at) == ([1], NOON)
    assert meter.usage_of(ours.identity) is not None
    await asyncio.sleep(MAX_AGE_S + 0.1)
    await meter.refresh([ours], boot_id=boot_id())
    assert counted.measures == [1, 1]


async def test_a_client_that_goes_away_leaves_the_measure_to_the_others() -> None:
    meter, ours = a_meter(), leader(os.getpid())
    first = asyncio.create_task(meter.refresh([ours], boot_id=boot_id()))
    second = asyncio.create_task(meter.refresh([ours], boot_id=boot_id()))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert meter.usage_of(ours.identity) is not None


async def test_a_process_of_another_boot_is_not_measured() -> None:
    meter, ours = a_meter(), leader(os.getpid())
    await meter.refresh([ours], boot_id="another boot")
    assert meter.usage_of(ours.identity) is None


async def test_an_old_measure_is_forgotten() -> None:
    meter, ours = a_meter(), leader(os.getpid())
    await meter.refresh([ours], boot_id=boot_id())
    await asyncio.sleep(60)
    assert meter.usage_of(ours.identity) is None
