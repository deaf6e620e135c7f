"""What the kernel says of processes and of the machine: memory, processor time, the moment of an end."""

from __future__ import annotations

import os
import platform
import select
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from tests.kits.measuring import memory_mib

Threads = dict[tuple[int, int], int]


def tree(roots: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The processes and all their descendants, each once."""
    found: dict[int, psutil.Process] = {}
    for root in roots:
        try:
            for process in (root, *root.children(recursive=True)):
                found[process.pid] = process
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def pss_mib(roots: Iterable[psutil.Process]) -> float:
    """PSS of the whole tree; a process that ends meanwhile has none."""
    total = 0.0
    for process in tree(roots):
        try:
            total += memory_mib(process, "Pss")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def threads_ns(roots: Iterable[psutil.Process]) -> Threads:
    """Nanoseconds that each thread of the tree has been on a processor."""
    found: Threads = {}
    for process in tree(roots):
        for task in _tasks(process.pid):
            try:
                found[process.pid, int(task.name)] = int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def used_s(before: Threads, after: Threads) -> float:
    """Processor seconds between the two; the last moments of threads that have ended are not known."""
    return sum(ns - before.get(thread, 0) for thread, ns in after.items()) / 1e9


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def machine_busy_s() -> float:
    """Seconds that all processors together have been busy since the start of the machine."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def tree_s(root: psutil.Process) -> float:
    """Processor seconds of a process and its descendants."""
    total = 0.0
    for process in tree([root]):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += float(used.user + used.system)
    return total


def ends_at(pid: int, limit_s: float) -> float | None:
    """The time at which the process ended, watched by a pidfd; now for one that has gone, None after the limit."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return time.time()
    try:
        ready, _, _ = select.select([descriptor], [], [], limit_s)
        return time.time() if ready else None
    finally:
        os.close(descriptor)


def machine(versions: dict[str, str]) -> dict[str, Any]:
    """What the figures depend on, without names or places of this machine."""
    return {
        "processors": os.cpu_count(),
        "model": _cpu_model(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release().split("-")[0],
        "system": _system(),
        "python": platform.python_version(),
        **versions,
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return found or platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
