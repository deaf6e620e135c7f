"""What the kernel does for a run besides running it: keeps its processes together, and tells when it killed it.

Both are a help that is not there everywhere, so nothing here raises: what fails is logged, and the run goes without.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable

from runnerd.spawner.cgroup import Cgroups
from runnerd.spawner.log import log
from runnerd.spawner.oom import KernelLog, is_out_of_memory
from runnerd.spawner.records import Run
from runnerd.spawner.watch import Watch


class Kernel:
    def __init__(self, *, cgroups: Cgroups, kernel_log: KernelLog) -> None:
        self._cgroups = cgroups
        self._log = kernel_log

    @classmethod
    def here(cls) -> Kernel:
        """Goes into the spawner's own cgroup where one is delegated."""
        cgroups = Cgroups.take()
        log(f"runs get cgroups in {cgroups.root}" if cgroups.why is None else f"runs get no cgroups: {cgroups.why}")
        return cls(cgroups=cgroups, kernel_log=KernelLog.open())

    def limits(self) -> dict[str, object]:
        """By what a run is kept to its limits, and why not all by its cgroup: as `protocol.Hello` has it."""
        limits = {"memory_max": "rlimit", "cpu_quota": None, "tasks_max": "rlimit" if os.geteuid() == 0 else None}
        return {"limits": limits, "why": self._cgroups.why or "no controller is enabled in the spawner's own cgroup"}

    def note(self, run: Run) -> None:
        """Before its record is written: from where on the kernel's log may be about it."""
        run.kernel_log_from = self._log.position()

    def hold(self, watch: Watch) -> None:
        """Before it is let go: put it into a cgroup of its own."""
        run = watch.run
        watch.cgroup = self._cgroups.make(run.key, run.attempt)
        if watch.cgroup is None:
            return
        try:
            watch.cgroup.place(watch.pid)
        except OSError as error:
            if error.errno != errno.ESRCH:  # it could not be set up, and is gone
                log(f"{run.name} cannot be put into cgroup {watch.cgroup.directory}: {error.strerror}; going without")

    def find(self, watch: Watch) -> None:
        """Take over the cgroup that an earlier spawner put it into."""
        watch.cgroup = self._cgroups.find(watch.run.key, watch.run.attempt)

    def release(self, watch: Watch) -> None:
        """It is over."""
        if watch.cgroup is None:
            return
        try:
            if not watch.cgroup.remove():
                log(f"{watch.run.name} leaves cgroup {watch.cgroup.directory}: a process lives there")
        except OSError as error:
            log(f"{watch.run.name} cannot remove cgroup {watch.cgroup.directory}: {error.strerror}")

    def clean(self, held: Iterable[Watch]) -> None:
        """Remove what earlier spawners left, and nobody holds."""
        self._cgroups.clean(keep={watch.cgroup.directory for watch in held if watch.cgroup is not None})

    def judge(self, watch: Watch, facts: dict[str, object]) -> None:
        """Put into the facts of its exit whether it was killed for want of memory."""
        died_by = facts["signal"]
        named = self._log.killed(watch.pid, watch.run.kernel_log_from)
        facts["oom"] = is_out_of_memory(
            seen=watch.child,
            died_by=died_by if isinstance(died_by, int) else None,
            by_us=watch.struck,
            named=named,
            killed_in_group=self._killed_in_group(watch),
        )
        if facts["oom"]:
            facts["signal"] = signal.SIGKILL.value  # also where nobody saw it: that is how the kernel does it

    def _killed_in_group(self, watch: Watch) -> int | None:
        try:
            return None if watch.cgroup is None else watch.cgroup.killed_for_memory()
        except OSError as error:
            log(f"{watch.run.name} cannot read what its cgroup counted: {error.strerror}")
            return None
