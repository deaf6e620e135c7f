"""Checks the spawner: its connection, its version, which limits it can set, and its open files."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence

from runnerd.core.names import some
from runnerd.core.settings import RunSettings
from runnerd.doctor.checks import Check, error, ok, unknown, warning
from runnerd.doctor.subject import Source, Subject
from runnerd.processes.protocol import Hello
from runnerd.processes.upgrading import WantedSpawner
from runnerd.system.threads import in_thread

LIMITS = ("memory_max", "cpu_quota", "tasks_max")
_OWN_FILES, _FILES_A_RUN = 128, 4
_WEAK = {"memory_max": "to each process separately", "tasks_max": "to all processes of the user together"}
_CONTROLLERS = (
    "enable the memory, cpu and pids controllers: boot with systemd.unified_cgroup_hierarchy=1 and without"
    " cgroup_disable=; /sys/fs/cgroup/cgroup.controllers lists the enabled ones"
)
_DELEGATE = "start runnerd by its systemd units: runnerd-runs.service provides a delegated cgroup (Delegate=yes)"


async def run_spawner_checks(subject: Subject) -> Sequence[Check]:
    managed = subject.paths.managed_spawner is not None
    if not subject.link.connected:
        why = subject.link.problem or "there is no connection yet"
        log = "journalctl -u runnerd-spawner" if managed else os.path.join(subject.paths.log, "spawner.log")
        unit = "systemctl status runnerd-spawner, " if managed else ""
        detail = f"cannot use the spawner: {why}; meanwhile no run can be started or stopped"
        return [error("spawner", detail, f"see {unit}{log}")]
    hello = subject.link.hello
    wanted = subject.wanted_spawner
    return [check_spawner(hello, wanted, managed=managed), check_limits(hello, subject.sources(), managed=managed)]


def check_spawner(hello: Hello | None, wanted: WantedSpawner, *, managed: bool) -> Check:
    if hello is None:
        return unknown("spawner", "the connection was lost during the check", "run the doctor again")
    difference = wanted.difference(hello)
    if difference is None:
        return ok("spawner", f"connected, version {hello.version}, pid {hello.pid}")
    if managed and difference == wanted.difference_of_users(hello):
        remedy = "name the same users in both units (systemctl edit), then systemctl restart runnerd-spawner runnerd"
        return warning("spawner", difference, remedy)
    remedy = "wait, or: runnerctl drain, wait until runnerctl runs lists none, then runnerctl undrain"
    return warning("spawner", f"{difference}; it is replaced when no run is live, and no Prefect worker", remedy)


# --- limits ---------------------------------------------------------------------------------------------------


def check_limits(hello: Hello | None, sources: Sequence[Source], *, managed: bool) -> Check:
    """Check that each limit applies to a run as a whole, which needs a cgroup; else report what applies instead."""
    if hello is None or not hello.limits:
        return unknown("limits", "the spawner does not report which limits it can set")
    weak = [key for key in LIMITS if hello.limits.get(key) == "rlimit"]
    without = [key for key in LIMITS if hello.limits.get(key) is None]
    if not weak and not without:
        return ok("limits", f"{_join(LIMITS)} apply to each run as a whole (cgroup)")
    said = [f"{key} applies {_WEAK.get(key, 'as an rlimit only')}" for key in weak]
    said += [f"{key} has no effect" for key in without]
    detail = ", ".join(said) + (f": {hello.why}" if hello.why else "")
    remedy = _CONTROLLERS if managed else _DELEGATE
    ineffective = _ineffective(without, sources)
    if ineffective:
        return error("limits", f"{ineffective}, but {detail}", f"{remedy}; or remove these keys")
    return warning("limits", detail, remedy)


def _ineffective(without: Sequence[str], sources: Sequence[Source]) -> str:
    """Name the sources that set a limit which has no effect."""
    names_of = {key: [one.name for one in sources if _sets(one.run, key)] for key in without}
    return " and ".join(f"{some(names)} {'sets' if len(names) == 1 else 'set'} {key}"
                        for key, names in names_of.items() if names)  # fmt: skip


def _sets(run: RunSettings, key: str) -> bool:
    values = {"memory_max": run.memory_max_bytes, "cpu_quota": run.cpu_quota_percent, "tasks_max": run.tasks_max}
    return values[key] is not None


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# --- file descriptors -----------------------------------------------------------------------------------------


async def run_open_files_checks(subject: Subject) -> Sequence[Check]:
    """Check the limits of open files: a run takes some in the spawner, a request or follower one in the daemon."""
    own, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = {"runnerd": own}
    hello = subject.link.hello
    if subject.link.connected and hello is not None:
        pid = hello.pid
        limit = await in_thread(lambda: open_files_of(pid))
        limits |= {"runnerd-spawner": limit} if limit is not None else {}
    return [check_files(limits, subject.config.current.settings.limits.runs)]


def open_files_of(pid: int) -> int | None:
    """Read the soft limit of open files of a process; None when the kernel denies it."""
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("Max open files"))
        return resource.RLIM_INFINITY if line.split()[3] == "unlimited" else int(line.split()[3])
    except (OSError, StopIteration, ValueError):
        return None


def check_files(limits: Mapping[str, int], runs: int) -> Check:
    need = _OWN_FILES + _FILES_A_RUN * runs
    short = {name: limit for name, limit in limits.items() if limit != resource.RLIM_INFINITY and limit < need}
    if not short:
        return ok("open files", f"enough for limits.runs {runs}")
    who = " and ".join(f"{name} may open {limit} files" for name, limit in short.items())
    detail = f"{who}, but limits.runs {runs} may need {need}; runs may fail to start"
    units = " and ".join(f"{name}.service" for name in short)
    return error(
        "open files", detail, f"set LimitNOFILE={max(need, 65536)} for {units} (systemctl edit), or lower limits.runs"
    )
