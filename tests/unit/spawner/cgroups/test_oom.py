"""What counts as evidence that a run was killed for memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runnerd.spawner.cgroups.oom import KernelLog, is_out_of_memory, read_record

# Recorded: Linux 6.18, a cgroup's limit.
OF_A_CGROUP = (
    b"3,453,13272143741,-;Memory cgroup out of memory: Killed process 4711 (python) total-vm:76140kB, "
    b"anon-rss:65280kB, file-rss:5784kB, shmem-rss:0kB, UID:0 pgtables:184kB oom_score_adj:0\n"
)
# As the kernel's source has them.
OF_THE_HOST = (
    b"3,812,92110021,-,caller=T1;Out of memory: Killed process 4711 (python3) total-vm:8203144kB, "
    b"anon-rss:7964372kB, file-rss:4kB, shmem-rss:0kB, UID:1000 pgtables:15720kB oom_score_adj:0\n"
)
OF_WHOEVER_ASKED = b"3,812,92110021,-;Out of memory (oom_kill_allocating_task): Killed process 4711 (a) total-vm:1kB\n"
OF_LINUX_4 = b"3,500,4000000,-;Killed process 4711 (python3) total-vm:203144kB, anon-rss:64372kB, file-rss:9484kB\n"


@pytest.mark.parametrize(
    ("record", "number"),
    [(OF_A_CGROUP, 453), (OF_THE_HOST, 812), (OF_WHOEVER_ASKED, 812), (OF_LINUX_4, 500)],
)
def test_a_kill(record: bytes, number: int) -> None:
    assert read_record(record) == (number, 4711)


CHOSEN = (
    b"6,5;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,"
    b"task_memcg=/a,task=python3,pid=4711,uid=0"  # whether it was killed, a line of its own says
)


@pytest.mark.parametrize(
    "text",
    [
        CHOSEN,
        b"3,5;Memory cgroup out of memory: OOM victim 4711 (python3) is already exiting. Skip killing the task",
        b"4,5;python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        b"6,5;oom_reaper: reaped process 4711 (python3), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
        b"6,5;[   4711]     0  4711    19035    17766    16320     1446    0   188416        0             0 python3",
        b"3,5;Out of memory: Kill process 4711 (python3) score 900 or sacrifice child",  # Linux 4: it may be the child
        b"6,5;x: Killed process 4711 (python3) total-vm:1kB",
        b"11,5;Out of memory: Killed process 4711 (python3) total-vm:1kB",  # written by a program: facility 1
    ],
)
def test_no_kill(text: bytes) -> None:
    head, _, said = text.partition(b";")
    assert read_record(head + b",1000000,-;" + said + b"\n") == (5, None)


def test_what_is_no_record() -> None:
    for text in (b"", b"\n", b"x,1,2,-;Killed process 1 (x)", b" SUBSYSTEM=acpi\n"):
        with pytest.raises(ValueError, match="not a record"):
            read_record(text)


class Said:
    """A log that says one record a read, as the kernel's does."""

    def __init__(self) -> None:
        read, self.write = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        self.log = KernelLog(read)
        self.next = 100

    def line(self, text: str) -> None:
        os.write(self.write, f"3,{self.next},{self.next * 1000},-;{text}\n".encode())
        self.next += 1

    def kill(self, pid: int) -> None:
        self.line(f"Out of memory: Killed process {pid} (python3) total-vm:1kB")


@pytest.fixture
def said() -> Iterator[Said]:
    said = Said()
    yield said
    said.log.close()
    os.close(said.write)


def test_a_kill_since(said: Said) -> None:
    said.line("Linux version 6.1")
    since = said.log.next_number()
    assert since == 101
    assert said.log.has_killed(7, since) is False
    said.line("something else")
    said.kill(7)
    assert said.log.has_killed(7, since) is True
    assert said.log.has_killed(8, since) is False


def test_a_pid_that_comes_round_again(said: Said) -> None:
    said.kill(7)
    since = said.log.next_number()
    assert said.log.has_killed(7, since) is False
    said.kill(7)
    assert said.log.has_killed(7, since) is True


def test_lines_it_cannot_read_hide_none_it_can(said: Said) -> None:
    since = said.log.next_number()
    os.write(said.write, b"a format of the future\n")
    said.kill(7)
    assert said.log.has_killed(7, since) is True


def test_the_last_kills_are_kept(said: Said) -> None:
    since = said.log.next_number()
    for pid in range(1, 1101):
        said.kill(pid)
        assert said.log.has_killed(pid, since) is True
    assert said.log.has_killed(1100, since) is True
    assert said.log.has_killed(1, since) is False


def test_a_log_that_cannot_be_read() -> None:
    log = KernelLog(None)
    assert log.next_number() is None
    assert log.has_killed(1, None) is None
    assert log.has_killed(1, 0) is None


def test_a_log_that_breaks_off() -> None:
    """A descriptor that fails to read, here one opened for writing: known for no log, and not asked again."""
    read, write = os.pipe()
    os.close(read)
    log = KernelLog(write)
    assert log.has_killed(1, 0) is None
    assert log.next_number() is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write)


def test_a_run_from_before_the_log_could_be_read(said: Said) -> None:
    said.kill(7)
    assert said.log.has_killed(7, None) is None


@pytest.mark.parametrize(
    ("expected", "our_child", "died_of", "by_us", "in_log", "oom_kills"),
    [
        (True, True, 9, False, True, None),
        (True, True, 9, True, True, None),  # a cancel was under way, and the kernel was faster
        (True, False, None, False, True, None),  # taken over: nobody saw the end, and the kernel names it
        (False, True, 9, False, False, 1),  # a child was killed for memory, the leader by somebody else
        (False, True, 9, True, None, 1),
        (False, True, 9, True, False, None),
        (True, True, 9, False, None, 1),
        (False, True, 9, False, None, 0),
        (False, True, 9, False, None, None),  # a SIGKILL and no evidence: an administrator's, for all we know
        (False, True, None, False, True, 1),  # it had exited by itself
        (False, True, 15, True, None, 1),
        (False, True, 11, False, None, 1),
        (False, False, None, False, None, 1),
        (False, False, None, False, False, 1),
    ],
)
def test_the_verdict(
    expected: bool, our_child: bool, died_of: int | None, by_us: bool, in_log: bool | None, oom_kills: int | None
) -> None:
    verdict = is_out_of_memory(
        is_our_child=our_child, died_of=died_of, killed_by_us=by_us, in_kernel_log=in_log, cgroup_oom_kills=oom_kills
    )
    assert verdict is expected


@pytest.mark.parametrize(
    ("expected", "our_child", "died_of", "in_log"),
    [
        (True, False, None, None),  # taken over, and no log: all that lived there was killed, so the leader was
        (False, False, None, False),  # the log has the last word
        (False, True, None, None),  # it had exited by itself, and what it left was killed
    ],
)
def test_the_verdict_on_a_cgroup_that_was_killed_whole(
    expected: bool, our_child: bool, died_of: int | None, in_log: bool | None
) -> None:
    verdict = is_out_of_memory(
        is_our_child=our_child,
        died_of=died_of,
        killed_by_us=False,
        in_kernel_log=in_log,
        cgroup_oom_kills=3,
        cgroup_killed_whole=True,
    )
    assert verdict is expected
