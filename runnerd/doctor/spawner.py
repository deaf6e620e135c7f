"""Looks at the spawner: whether it is there, which version it is, and which limits it can set."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence

from runnerd import __version__
from runnerd.core.settings import RunSettings
from runnerd.doctor.checks import Check, error, ok, some, unknown, warning
from runnerd.doctor.look import in_thread
from runnerd.doctor.subject import Source, Subject
from runnerd.processes.protocol import Hello

LIMITS = ("memory_max", "cpu_quota", "tasks_max")
_OWN_FILES, _FILES_A_RUN = 128, 4
_WEAK = {"memory_max": "for each process by itself", "tasks_max": "for all processes of its user together"}
_CONTROLLERS = (
    "cat /sys/fs/cgroup/cgroup.controllers shows what there is; memory, cpu and pids are in it where the host boots"
    " with systemd.unified_cgroup_hierarchy=1 and without cgroup_disable="
)
_DELEGATE = "start runnerd by its systemd units: runnerd-runs.service is the cgroup that runs get (Delegate=yes)"


async def look_at_spawner(subject: Subject) -> Sequence[Check]:
    managed = subject.paths.managed_spawner is not None
    if not subject.link.connected:
        why = subject.link.problem or "it is not connected yet"
        log = "journalctl -u runnerd-spawner" if managed else os.path.join(subject.paths.log, "spawner.log")
        unit = "systemctl status runnerd-spawner, " if managed else ""
        detail = f"runnerd has no spawner: {why}; nothing can be started or ended meanwhile"
        return [error("spawner", detail, f"see {unit}{log}")]
    hello = subject.link.hello
    return [spawner_check(hello), limits_check(hello, subject.sources(), managed=managed)]


def spawner_check(hello: Hello | None) -> Check:
    if hello is None:
        return unknown("spawner", "the connection was lost a moment ago", "ask again")
    if hello.version == __version__:
        return ok("spawner", f"connected, version {hello.version}, pid {hello.pid}")
    detail = f"its version is {hello.version} and runnerd's {__version__}: it is replaced once there are no runs"
    return warning(
        "spawner", detail, "where there always are: runnerctl drain until runnerctl runs shows none, undrain"
    )


# --- limits ---------------------------------------------------------------------------------------------------


def limits_check(hello: Hello | None, sources: Sequence[Source], *, managed: bool) -> Check:
    """Whether what may be asked for holds for a run as a whole: only a cgroup can do that."""
    if hello is None or not hello.limits:
        return unknown("limits", "the spawner does not say which limits it can set")
    weak = [key for key in LIMITS if hello.limits.get(key) == "rlimit"]
    without = [key for key in LIMITS if hello.limits.get(key) is None]
    if not weak and not without:
        return ok("limits", f"{_join(LIMITS)} hold for each run as a whole (cgroup)")
    said = [f"{key} holds {_WEAK.get(key, 'by rlimit only')}" for key in weak]
    said += [f"{key} has no effect" for key in without]
    detail = ", ".join(said) + (f": {hello.why}" if hello.why else "")
    remedy = _CONTROLLERS if managed else _DELEGATE
    vain = _asked_in_vain(without, sources)
    if vain:
        return error("limits", f"{vain}, but {detail}", f"{remedy}; or remove these keys")
    return warning("limits", detail, remedy)


def _asked_in_vain(without: Sequence[str], sources: Sequence[Source]) -> str:
    asked = {key: [one.name for one in sources if _wants(one.run, key)] for key in without}
    return " and ".join(f"{some(names)} {'asks' if len(names) == 1 else 'ask'} for {key}"
                        for key, names in asked.items() if names)  # fmt: skip


def _wants(run: RunSettings, key: str) -> bool:
    values = {"memory_max": run.memory_max_bytes, "cpu_quota": run.cpu_quota_percent, "tasks_max": run.tasks_max}
    return values[key] is not None


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


# --- file descriptors -----------------------------------------------------------------------------------------


async def look_at_files(subject: Subject) -> Sequence[Check]:
    """Each run costs its spawner a few descriptors; every request and follower costs the daemon one."""
    own, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = {"runnerd": own}
    hello = subject.link.hello
    if subject.link.connected and hello is not None:
        pid = hello.pid
        its = await in_thread(lambda: open_files_of(pid))
        limits |= {"runnerd-spawner": its} if its is not None else {}
    return [files_check(limits, subject.config.current.settings.limits.runs)]


def open_files_of(pid: int) -> int | None:
    """The soft limit of a process; None where the kernel does not show it to us."""
    try:
        with open(f"/proc/{pid}/limits", encoding="ascii") as file:
            line = next(line for line in file if line.startswith("Max open files"))
        return resource.RLIM_INFINITY if line.split()[3] == "unlimited" else int(line.split()[3])
    except (OSError, StopIteration, ValueError):
        return None


def files_check(limits: Mapping[str, int], runs: int) -> Check:
    need = _OWN_FILES + _FILES_A_RUN * runs
    short = {name: limit for name, limit in limits.items() if limit != resource.RLIM_INFINITY and limit < need}
    if not short:
        return ok("open files", f"enough for limits.runs {runs}")
    who = " and ".join(f"{name} may open {limit} files" for name, limit in short.items())
    detail = f"{who}, and limits.runs {runs} may need {need}: runs will fail to start"
    units = " and ".join(f"{name}.service" for name in short)
    return error(
        "open files", detail, f"set LimitNOFILE={max(need, 65536)} for {units} (systemctl edit), or lower limits.runs"
    )
