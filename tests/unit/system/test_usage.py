"""usage.py: what processes use."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

from runnerd.core.process import Identity
from runnerd.processes.protocol import boot_id
from runnerd.spawner.proc.identity import read_start_ticks
from runnerd.system.usage import Usage, usage_of


def identity(pid: int) -> Identity:
    ticks = read_start_ticks(pid)
    assert ticks is not None
    return Identity(boot_id=boot_id(), pid=pid, start_ticks=ticks)


def used_by(identity: Identity) -> Usage | None:
    return usage_of(identity, boot_id=boot_id())


def test_what_a_process_and_its_children_use() -> None:
    script = "sleep 100 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        part, whole = used_by(identity(child)), used_by(identity(leader.pid))
        leader.kill()
        os.kill(child, 9)
    assert whole is not None
    assert part is not None
    assert whole.memory_bytes > part.memory_bytes > 0


def test_our_own_usage() -> None:
    used = used_by(identity(os.getpid()))
    assert used is not None
    assert used.memory_bytes > 2**20
    assert used.cpu_s > 0


def test_a_pid_alone_is_not_believed() -> None:
    ours = identity(os.getpid())
    assert used_by(replace(ours, boot_id="another boot")) is None
    assert used_by(replace(ours, start_ticks=ours.start_ticks + 10_000)) is None


def test_a_process_that_is_gone_uses_nothing() -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        gone = identity(process.pid)
        process.kill()
    assert used_by(gone) is None
