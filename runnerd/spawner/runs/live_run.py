"""Signal, kill and reap the processes of a run that lives.

The pid of a leader that is our child is safe to signal until `reap()`: only we can reap it. The leader of a run that an
earlier spawner started is not our child: it is signalled only after its start ticks matched, and its exit status is
unknown, except for what the kernel's log says. `lineage` is set where a child of ours need not be an orphan of a run,
or where the run's orphans do not become our children.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from runnerd.spawner.cgroups.run_cgroup import RunCgroup
from runnerd.spawner.child.fork import Child, SetupReport
from runnerd.spawner.io.log import log
from runnerd.spawner.proc.identity import Boot, open_pidfd, read_start_ticks
from runnerd.spawner.proc.lineage import Lineage
from runnerd.spawner.proc.processes import scan_processes, with_descendants
from runnerd.spawner.runs.records import ProcessRecord, utc_now

_REPORT_MAX_BYTES = 4096
Leaders = Callable[[], Iterable[int]]


class LiveRun:
    """The processes of one run. `child`: the leader is our child."""

    __slots__ = (
        "_explain",
        "_report",
        "cgroup",
        "child",
        "killed",
        "lineage",
        "pid",
        "pidfd",
        "run",
        "status_fd",
        "sweep_until",
        "ticks",
        "waiting",
    )

    def __init__(self, run: ProcessRecord, *, pid: int, ticks: int, pidfd: int | None, status_fd: int | None) -> None:
        self.run = run
        self.pid = pid
        self.ticks = ticks
        self.pidfd = pidfd  # None: the leader was gone when this spawner adopted the run
        self.child = status_fd is not None
        self.lineage: Lineage | None = None
        self.cgroup: RunCgroup | None = None
        self.killed = False  # the spawner sent the leader SIGKILL
        self.status_fd = status_fd  # None once the child's report was read to its end
        self._report = b""
        self._explain: Callable[[bytes], SetupReport] | None = None
        self.waiting: list[
            Callable[[ProcessRecord], None]
        ] = []  # replies to the spawn requests that wait for the start
        self.sweep_until: float | None = None  # set once the leader has exited

    @classmethod
    def of_child(cls, run: ProcessRecord, child: Child, ticks: int) -> LiveRun:
        """Make the live run of a child that was just forked."""
        live = cls(run, pid=child.pid, ticks=ticks, pidfd=child.pidfd, status_fd=child.status_fd)
        live._explain = child.explain
        return live

    @classmethod
    def of_record(cls, run: ProcessRecord, boot: Boot, leaders: Leaders) -> LiveRun | None:
        """Make the live run of a record from an earlier spawner; None when it is of another boot or has no pid."""
        if run.boot != boot or run.pid is None or run.start_ticks is None:
            return None
        pidfd = open_pidfd(run.pid, run.start_ticks)
        live = cls(run, pid=run.pid, ticks=run.start_ticks, pidfd=pidfd, status_fd=None)
        live.track_lineage(leaders)
        return live

    def track_lineage(self, leaders: Leaders) -> None:
        """Find this run's processes by their lineage."""
        self.lineage = Lineage(key=self.run.key, pid=self.pid, ticks=self.ticks, leaders=leaders)

    def read_report(self, *, last: bool = False) -> bool:
        """Read the child's report of its set-up; True at its end, and the caller then closes the descriptor.

        A failure is put into the run's error. `last`: the child has exited, and
        what has not come does not come. What follows is not read: a forked run may write, and keep open, for ever.
        """
        if self.status_fd is None:
            return True
        try:
            data = os.read(self.status_fd, _REPORT_MAX_BYTES)
        except BlockingIOError:
            if not last:
                return False
            data = b""
        self._report += data
        if data and len(self._report) < _REPORT_MAX_BYTES:
            return False
        self.status_fd = None
        if self._report and self._explain is not None:
            failure = self._explain(self._report)
            self.run.error = {"stage": failure.stage, "errno": failure.errno, "message": failure.message}
        return True

    def send_signal(self, number: int) -> None:
        """Signal the run's process group."""
        if number == signal.SIGKILL and self.sweep_until is None:
            self.killed = True
        if not self.child and read_start_ticks(self.pid) != self.ticks:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            self._signal_leader(number)
        except PermissionError as error:
            log(f"{self.run.name} cannot signal its process group: {error.strerror}")

    def _signal_leader(self, number: int) -> None:
        """Signal the leader alone: before its setsid there is no group yet."""
        if self.pidfd is None:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def record_members(self) -> None:
        """Record which processes belong to the run, where its lineage does not show this after the leader's end."""
        if self.lineage is not None:
            self._try(self.lineage.record_members)

    def kill_tree(self) -> None:
        """SIGKILL all processes of the run, in whatever sessions, while the leader lives."""
        if self.lineage is not None:
            self._try(self.lineage.kill_tree)
        self.send_signal(signal.SIGKILL)
        if self.lineage is None:
            self._try(self._kill_descendants)  # a leader that hangs in the kernel must not protect its descendants
        self._try(self.kill_cgroup)

    def kill_cgroup(self) -> bool:
        """SIGKILL the processes in the run's cgroup; return whether there are any."""
        if self.cgroup is None or not self.cgroup.is_populated():
            return False
        self.cgroup.kill_processes()
        return True

    def _kill_descendants(self) -> None:
        for process in with_descendants(scan_processes(), [self.pid]):
            if process.pid != self.pid and process.alive:
                process.send_signal(signal.SIGKILL)

    def _try(self, do: Callable[[], object]) -> None:
        try:
            do()
        except OSError as error:  # out of descriptors
            log(f"{self.run.name} cannot scan for its processes: {error.strerror}")

    def reap(self) -> dict[str, object]:
        """Reap the leader and return the facts of its exit, for the record. Afterwards its pid may be reused."""
        if self.pidfd is not None:
            os.close(self.pidfd)
        if not self.child:
            return exit_facts()
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            return exit_facts()
        facts = exit_facts(status)
        facts["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 3)
        facts["max_rss_bytes"] = usage.ru_maxrss * 1024
        return facts


def exit_facts(status: int | None = None) -> dict[str, object]:
    """Return the facts of an exit with this wait status; without one when the leader was not our child."""
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return {
        "code": code if code is not None and code >= 0 else None,
        "signal": -code if code is not None and code < 0 else None,
        "oom": False,
        "cpu_s": None,
        "max_rss_bytes": None,
        "at": utc_now(),
    }
