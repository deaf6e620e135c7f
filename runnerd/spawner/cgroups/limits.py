"""Translate memory_max, cpu_quota and tasks_max into cgroup files, or into rlimits where the cgroup has no controller.

A cgroup limits the run as a whole, an rlimit each process. A run gets an rlimit only for what its cgroup does not
enforce; where the deployment sets the same one in `rlimits`, the lower value counts.
"""

from __future__ import annotations

import os
import resource

from runnerd.spawner.cgroups.run_cgroup import RunCgroup
from runnerd.spawner.io.messages import Launch

_CPU_PERIOD_US = 100_000
_MIN_CPU_QUOTA_US = 1000  # the kernel refuses less
_MAX_PIDS = 4194304  # the kernel refuses more: PID_MAX_LIMIT

Rlimit = tuple[str, int, int, int]  # name, resource number, soft, hard


def find_enforcers(controllers: set[str]) -> dict[str, str | None]:
    """Return what enforces each limit: "cgroup", "rlimit" or None, as runnerd.processes.protocol.Hello has it."""
    return {
        "memory_max": "cgroup" if "memory" in controllers else "rlimit",
        "cpu_quota": "cgroup" if "cpu" in controllers else None,
        "tasks_max": "cgroup" if "pids" in controllers else "rlimit" if os.geteuid() == 0 else None,
    }


def choose_cgroup_files(launch: Launch, controllers: set[str]) -> dict[str, dict[str, str]]:
    """Return, for each limit of the run that these controllers can enforce, its cgroup files and their contents."""
    found = {}
    if launch.memory_max_bytes is not None and "memory" in controllers:
        # oom.group: a flow of which only a worker process is killed may wait for that process for ever.
        found["memory_max"] = {"memory.oom.group": "1", "memory.max": str(launch.memory_max_bytes)}
    if launch.cpu_quota_percent is not None and "cpu" in controllers:
        quota_us = max(_MIN_CPU_QUOTA_US, round(launch.cpu_quota_percent * _CPU_PERIOD_US / 100))
        found["cpu_quota"] = {"cpu.max": f"{quota_us} {_CPU_PERIOD_US}"}
    if launch.tasks_max is not None and "pids" in controllers:
        found["tasks_max"] = {"pids.max": str(min(launch.tasks_max, _MAX_PIDS))}
    return found


def write_cgroup_limits(cgroup: RunCgroup, launch: Launch, controllers: set[str]) -> list[str]:
    """Write the run's limits into its cgroup; return those that failed, in words.

    The limits written are removed from `launch.outside_cgroup`, so that `make_rlimits` leaves them out.
    """
    failed = []
    for limit, contents in choose_cgroup_files(launch, controllers).items():
        try:
            for name, content in contents.items():
                cgroup.write_file(name, content)
        except OSError as error:
            failed.append(f"{limit} ({error.strerror})")
        else:
            launch.outside_cgroup.discard(limit)
    return failed


def make_rlimits(launch: Launch, *, user_counts: bool) -> list[Rlimit]:
    """Return the rlimits of the run's process.

    `user_counts`: tasks_max may be set as RLIMIT_NPROC, which counts all processes of the run's user.
    """
    found = {name: (number, soft, hard) for name, number, soft, hard in launch.rlimits}
    if "memory_max" in launch.outside_cgroup and launch.memory_max_bytes is not None:
        # Not RLIMIT_AS, which counts shared libraries, mapped files and memory reserved but never used: gigabytes for
        # an interpreter with a few threads. RLIMIT_DATA counts private writable memory.
        _lower(found, "data", resource.RLIMIT_DATA, launch.memory_max_bytes)
    if "tasks_max" in launch.outside_cgroup and launch.tasks_max is not None and user_counts:
        _lower(found, "nproc", resource.RLIMIT_NPROC, launch.tasks_max)
    return [(name, *bounds) for name, bounds in found.items()]


def _lower(found: dict[str, tuple[int, int, int]], name: str, number: int, value: int) -> None:
    given = found.get(name, (number, resource.RLIM_INFINITY, resource.RLIM_INFINITY))[1:]
    inherited = resource.getrlimit(number)[1]  # a process that is not root cannot raise the hard limit
    soft, hard = (_least(value, one, inherited) for one in given)
    found[name] = (number, soft, hard)


def _least(*values: int) -> int:
    return min((value for value in values if value != resource.RLIM_INFINITY), default=resource.RLIM_INFINITY)
