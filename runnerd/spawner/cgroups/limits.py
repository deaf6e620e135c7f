"""What keeps a run to its memory_max, cpu_quota and tasks_max: its cgroup all of it, or else rlimits each process.

A run gets an rlimit only for what its cgroup does not hold. The deployment's own `rlimits` stay; the lower one wins.
"""

from __future__ import annotations

import os
import resource

from runnerd.spawner.cgroups.run_cgroup import Cgroup
from runnerd.spawner.io.messages import Launch

_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1000  # the kernel takes no less
_MOST_TASKS = 4194304  # nor more: there are no more pids

Rlimit = tuple[str, int, int, int]  # name, resource number, soft, hard


def kept_by(controllers: set[str]) -> dict[str, str | None]:
    """By what each limit is kept, as `protocol.Hello` has it."""
    return {
        "memory_max": "cgroup" if "memory" in controllers else "rlimit",
        "cpu_quota": "cgroup" if "cpu" in controllers else None,
        "tasks_max": "cgroup" if "pids" in controllers else "rlimit" if os.geteuid() == 0 else None,
    }


def files(launch: Launch, controllers: set[str]) -> dict[str, dict[str, str]]:
    """What to write into the run's cgroup for each limit it has and these controllers can hold."""
    found = {}
    if launch.memory_max_bytes is not None and "memory" in controllers:
        # Whole: a flow whose worker alone is killed may wait for it for ever.
        found["memory_max"] = {"memory.oom.group": "1", "memory.max": str(launch.memory_max_bytes)}
    if launch.cpu_quota_percent is not None and "cpu" in controllers:
        quota_us = max(_LEAST_QUOTA_US, round(launch.cpu_quota_percent * _PERIOD_US / 100))
        found["cpu_quota"] = {"cpu.max": f"{quota_us} {_PERIOD_US}"}
    if launch.tasks_max is not None and "pids" in controllers:
        found["tasks_max"] = {"pids.max": str(min(launch.tasks_max, _MOST_TASKS))}
    return found


def bound(cgroup: Cgroup, launch: Launch, controllers: set[str]) -> list[str]:
    """Write the run's limits; what could not be written, in words. What was is no longer left to rlimits."""
    failed = []
    for limit, contents in files(launch, controllers).items():
        try:
            for name, content in contents.items():
                cgroup.set(name, content)
        except OSError as error:
            failed.append(f"{limit} ({error.strerror})")
        else:
            launch.unbounded.discard(limit)
    return failed


def rlimits(launch: Launch, *, user_counts: bool) -> list[Rlimit]:
    """All that the run's process gets. `user_counts`: its user has few enough processes besides to count them all."""
    found = {name: (number, soft, hard) for name, number, soft, hard in launch.rlimits}
    if "memory_max" in launch.unbounded and launch.memory_max_bytes is not None:
        # Not RLIMIT_AS: that counts shared libraries, mapped files and memory that is reserved and never touched, of
        # which an interpreter with a few threads has gigabytes. DATA counts what is private and writable.
        _lower(found, "data", resource.RLIMIT_DATA, launch.memory_max_bytes)
    if "tasks_max" in launch.unbounded and launch.tasks_max is not None and user_counts:
        _lower(found, "nproc", resource.RLIMIT_NPROC, launch.tasks_max)
    return [(name, *bounds) for name, bounds in found.items()]


def _lower(found: dict[str, tuple[int, int, int]], name: str, number: int, value: int) -> None:
    given = found.get(name, (number, resource.RLIM_INFINITY, resource.RLIM_INFINITY))[1:]
    inherited = resource.getrlimit(number)[1]  # who is not root may not exceed it
    soft, hard = (_least(value, one, inherited) for one in given)
    found[name] = (number, soft, hard)


def _least(*values: int) -> int:
    return min((value for value in values if value != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)
