"""Confine a run: make its cgroup, set its limits there, and say whether the OOM killer ended it.

Not every host offers cgroups and the kernel's log, so no method here raises: a failure is logged, and the run goes
without.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Iterable

from runnerd.spawner.cgroups.limits import find_enforcers, write_cgroup_limits
from runnerd.spawner.cgroups.oom import KernelLog, is_out_of_memory
from runnerd.spawner.cgroups.run_cgroup import RunCgroup
from runnerd.spawner.cgroups.tree import CONTROLLERS, CgroupTree
from runnerd.spawner.io.log import log
from runnerd.spawner.io.messages import Launch
from runnerd.spawner.runs.live_run import LiveRun
from runnerd.spawner.runs.records import ProcessRecord


class Confinement:
    """The cgroups of all runs, and the kernel's log."""

    def __init__(self, *, cgroups: CgroupTree, kernel_log: KernelLog) -> None:
        self._cgroups = cgroups
        self._kernel_log = kernel_log

    @classmethod
    def set_up(cls, *, unit: str | None) -> Confinement:
        """Find where runs get cgroups: in that of `unit`, else in the spawner's own; log the result."""
        confinement = cls(cgroups=CgroupTree.set_up(unit), kernel_log=KernelLog.open())
        root, why = (
            confinement._cgroups.root,
            confinement._explain_missing_limits(confinement._cgroups.enable_controllers()),
        )
        if root is None:
            log(f"runs get no cgroups: {why}")
        else:
            log(f"runs get cgroups in {root}" + ("" if why is None else f", without some limits: {why}"))
        return confinement

    def describe_limits(self) -> dict[str, object]:
        """Return what enforces each limit, and why not the cgroup: keys of the hello (processes/protocol.py)."""
        controllers = self._cgroups.enable_controllers()
        return {"limits": find_enforcers(controllers), "why": self._explain_missing_limits(controllers)}

    def _explain_missing_limits(self, controllers: set[str]) -> str | None:
        if self._cgroups.why is not None:
            return self._cgroups.why
        missing = ", ".join(name for name in CONTROLLERS if name not in controllers)
        return f"cgroup {self._cgroups.root} has no controller {missing}" if missing else None

    def mark_kernel_log(self, run: ProcessRecord) -> None:
        """Put into the run, before its record is written, from which line on the kernel's log can be about the run."""
        run.kernel_log_from = self._kernel_log.next_number()

    def make_cgroup(self, launch: Launch) -> RunCgroup | None:
        """Make a cgroup with the run's limits, before the fork; the child sets the others as rlimits."""
        controllers = self._cgroups.enable_controllers()
        cgroup = self._cgroups.make(launch.key, launch.attempt)
        failed = [] if cgroup is None else write_cgroup_limits(cgroup, launch, controllers)
        for what in failed:
            log(f"key={launch.key} attempt={launch.attempt} cannot set {what} in its cgroup; going without")
        return cgroup

    def enter_cgroup(self, run: ProcessRecord, pid: int, cgroup: RunCgroup | None) -> bool:
        """Put the forked child into its cgroup, if it has one, before its release; return whether that worked."""
        if cgroup is None:
            return True
        try:
            cgroup.add_process(pid)
        except OSError as error:
            if error.errno != errno.ESRCH:  # the child's set-up failed, and the child is gone
                log(f"{run.name} cannot enter cgroup {cgroup.directory}: {error.strerror}; going without")
            return False
        return True

    def find_cgroup(self, live: LiveRun) -> None:
        """Take over the cgroup that an earlier spawner put the run into."""
        live.cgroup = self._cgroups.find(live.run.key, live.run.attempt)

    def remove_cgroup(self, run: ProcessRecord, cgroup: RunCgroup | None) -> None:
        """Remove the cgroup of a run that has ended or did not start."""
        if cgroup is None:
            return
        try:
            if not cgroup.remove():
                log(f"{run.name} cannot remove cgroup {cgroup.directory}: a process lives there")
        except OSError as error:
            log(f"{run.name} cannot remove cgroup {cgroup.directory}: {error.strerror}")

    def remove_old_cgroups(self, held: Iterable[LiveRun]) -> None:
        """Remove the empty cgroups that earlier spawners left, except those of the runs in `held`."""
        self._cgroups.remove_empty(keep={live.cgroup.directory for live in held if live.cgroup is not None})

    def judge_oom(self, live: LiveRun, facts: dict[str, object]) -> None:
        """Set `oom` in the facts of an exit: whether the OOM killer ended the run."""
        died_of = facts["signal"]
        facts["oom"] = is_out_of_memory(
            is_our_child=live.child,
            died_of=died_of if isinstance(died_of, int) else None,
            killed_by_us=live.killed,
            in_kernel_log=self._kernel_log.has_killed(live.pid, live.run.kernel_log_from),
            cgroup_oom_kills=self._read_cgroup(live, RunCgroup.count_oom_kills),
            cgroup_killed_whole=bool(self._read_cgroup(live, RunCgroup.was_oom_group_killed)),
        )
        if facts["oom"]:
            # Unknown when the leader was not our child; SIGKILL is what the OOM killer sends.
            facts["signal"] = signal.SIGKILL.value

    def _read_cgroup(self, live: LiveRun, read: Callable[[RunCgroup], int | None]) -> int | None:
        try:
            return None if live.cgroup is None else read(live.cgroup)
        except OSError as error:
            log(f"{live.run.name} cannot read memory.events of its cgroup: {error.strerror}")
            return None
