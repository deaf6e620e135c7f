"""What the kernel does for a run besides running it: keeps its processes together, and tells when it killed it.

Both are a help that is not there everywhere, so nothing here raises: what fails is logged, and the run goes without.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Iterable

from runnerd.spawner.cgroups.limits import bound, kept_by
from runnerd.spawner.cgroups.oom import KernelLog, is_out_of_memory
from runnerd.spawner.cgroups.run_cgroup import Cgroup
from runnerd.spawner.cgroups.tree import CONTROLLERS, Cgroups
from runnerd.spawner.io.log import log
from runnerd.spawner.io.messages import Launch
from runnerd.spawner.runs.live_run import Watch
from runnerd.spawner.runs.records import Run


class Kernel:
    def __init__(self, *, cgroups: Cgroups, kernel_log: KernelLog) -> None:
        self._cgroups = cgroups
        self._log = kernel_log

    @classmethod
    def here(cls, *, unit: str | None) -> Kernel:
        """Runs get cgroups in that of `unit`; else the spawner goes into its own, where one is delegated."""
        kernel = cls(cgroups=Cgroups.take(unit), kernel_log=KernelLog.open())
        root, why = kernel._cgroups.root, kernel._why(kernel._cgroups.controllers())
        if root is None:
            log(f"runs get no cgroups: {why}")
        else:
            log(f"runs get cgroups in {root}" + ("" if why is None else f", and not all limits: {why}"))
        return kernel

    def limits(self) -> dict[str, object]:
        """By what a run is kept to its limits, and why not all by its cgroup: as `protocol.Hello` has it."""
        controllers = self._cgroups.controllers()
        return {"limits": kept_by(controllers), "why": self._why(controllers)}

    def _why(self, controllers: set[str]) -> str | None:
        if self._cgroups.why is not None:
            return self._cgroups.why
        missing = ", ".join(name for name in CONTROLLERS if name not in controllers)
        return f"cgroup {self._cgroups.root} has no controller {missing}" if missing else None

    def note(self, run: Run) -> None:
        """Before its record is written: from where on the kernel's log may be about it."""
        run.kernel_log_from = self._log.position()

    def make_room(self, launch: Launch) -> Cgroup | None:
        """Before it is forked: a cgroup of its own, with its limits. What that does not hold is left to its set-up."""
        controllers = self._cgroups.controllers()
        cgroup = self._cgroups.make(launch.key, launch.attempt)
        failed = [] if cgroup is None else bound(cgroup, launch, controllers)
        for what in failed:
            log(f"key={launch.key} attempt={launch.attempt} its cgroup does not hold its {what}; going without")
        return cgroup

    def hold(self, watch: Watch, cgroup: Cgroup | None) -> None:
        """Before it is let go: put it into its cgroup."""
        watch.cgroup = cgroup
        if cgroup is None:
            return
        try:
            cgroup.place(watch.pid)
        except OSError as error:
            if error.errno != errno.ESRCH:  # it could not be set up, and is gone
                log(f"{watch.run.name} cannot be put into cgroup {cgroup.directory}: {error.strerror}; going without")

    def find(self, watch: Watch) -> None:
        """Take over the cgroup that an earlier spawner put it into."""
        watch.cgroup = self._cgroups.find(watch.run.key, watch.run.attempt)

    def release(self, run: Run, cgroup: Cgroup | None) -> None:
        """It is over, or never began."""
        if cgroup is None:
            return
        try:
            if not cgroup.remove():
                log(f"{run.name} leaves cgroup {cgroup.directory}: a process lives there")
        except OSError as error:
            log(f"{run.name} cannot remove cgroup {cgroup.directory}: {error.strerror}")

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
            killed_whole=self._killed_whole(watch),
        )
        if facts["oom"]:
            facts["signal"] = signal.SIGKILL.value  # also where nobody saw it: that is how the kernel does it

    def _killed_in_group(self, watch: Watch) -> int | None:
        return self._counted(watch, Cgroup.killed_for_memory)

    def _killed_whole(self, watch: Watch) -> bool:
        return bool(self._counted(watch, Cgroup.killed_whole))

    def _counted(self, watch: Watch, read: Callable[[Cgroup], int | None]) -> int | None:
        try:
            return None if watch.cgroup is None else read(watch.cgroup)
        except OSError as error:
            log(f"{watch.run.name} cannot read what its cgroup counted: {error.strerror}")
            return None
