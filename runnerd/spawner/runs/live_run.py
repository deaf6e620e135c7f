"""What the spawner holds of a live run: its pidfd, and what it may do to its processes.

A leader that is our child is pinned: only we can reap it, so its number is its own until `reap()`. One that was taken
over from an earlier spawner is somebody else's child: it is signalled only after its start ticks matched, and nobody
can tell how it ended but the kernel's log. `kin` is set where the orphans of the run do not come to us, or not only
they.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable

from runnerd.spawner.cgroups.run_cgroup import Cgroup
from runnerd.spawner.child.fork import Child, Failure
from runnerd.spawner.io.log import log
from runnerd.spawner.proc.identity import Boot, open_process, start_ticks
from runnerd.spawner.proc.lineage import Kin
from runnerd.spawner.proc.processes import below, look
from runnerd.spawner.runs.records import Run, utc_now

Leaders = Callable[[], Iterable[int]]


class Watch:
    __slots__ = (
        "_told",
        "cgroup",
        "child",
        "kin",
        "pid",
        "pidfd",
        "run",
        "status_fd",
        "struck",
        "sweep_until",
        "ticks",
        "waiting",
    )

    def __init__(self, run: Run, *, pid: int, ticks: int, pidfd: int | None, status_fd: int | None) -> None:
        self.run = run
        self.pid = pid
        self.ticks = ticks
        self.pidfd = pidfd  # None: the leader was gone when it was taken over
        self.child = status_fd is not None
        self.kin: Kin | None = None
        self.cgroup: Cgroup | None = None  # of its own, where it has one
        self.struck = False  # we sent the leader SIGKILL
        self.status_fd = status_fd  # None once all that the child's set-up had to say was read
        self._told = b""
        self.waiting: list[Callable[[Run], None]] = []  # who asked to start it
        self.sweep_until: float | None = None  # set once the leader has exited

    @classmethod
    def of(cls, run: Run, child: Child, ticks: int) -> Watch:
        return cls(run, pid=child.pid, ticks=ticks, pidfd=child.pidfd, status_fd=child.status_fd)

    @classmethod
    def find(cls, run: Run, boot: Boot, leaders: Leaders) -> Watch | None:
        """The run of a record; None where its pid means nothing any more."""
        if run.boot != boot or run.pid is None or run.start_ticks is None:
            return None
        pidfd = open_process(run.pid, run.start_ticks)
        watch = cls(run, pid=run.pid, ticks=run.start_ticks, pidfd=pidfd, status_fd=None)
        watch.seek_kin(leaders)
        return watch

    def seek_kin(self, leaders: Leaders) -> None:
        self.kin = Kin(key=self.run.key, pid=self.pid, ticks=self.ticks, leaders=leaders)

    def read_status(self) -> bool:
        """Read what the set-up says of itself; whether that was all, then the caller closes the descriptor.

        A failure is put into the run's error.
        """
        if self.status_fd is None:
            return True
        told = os.read(self.status_fd, 4096)
        if told:
            self._told += told
            return False
        self.status_fd = None
        if self._told:
            failure = Failure(self._told)
            self.run.error = {"stage": failure.stage, "errno": failure.errno, "message": failure.message}
        return True

    def signal(self, number: int) -> None:
        """Signal the group."""
        if number == signal.SIGKILL and self.sweep_until is None:
            self.struck = True
        if not self.child and start_ticks(self.pid) != self.ticks:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            self._signal_leader(number)
        except PermissionError as error:
            log(f"{self.run.name} cannot signal its group: {error.strerror}")

    def _signal_leader(self, number: int) -> None:
        """Where there is no group yet: the child is still on its way to its setsid."""
        if self.pidfd is None:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return

    def remember(self) -> None:
        """See who belongs to the run, where that cannot be seen any more once its leader is gone."""
        if self.kin is not None:
            self._try(self.kin.remember)

    def kill(self) -> None:
        """SIGKILL all of it while the leader lives, whatever session it is in."""
        if self.kin is not None:
            self._try(self.kin.end)
        self.signal(signal.SIGKILL)
        if self.kin is None:
            self._try(self._kill_tree)  # a leader that is stuck in the kernel must not shield the rest
        self._try(self.kill_cgroup)

    def kill_cgroup(self) -> bool:
        """SIGKILL what lives in its cgroup; whether something does."""
        if self.cgroup is None or not self.cgroup.populated():
            return False
        self.cgroup.kill()
        return True

    def _kill_tree(self) -> None:
        for process in below(look(), [self.pid]):
            if process.pid != self.pid and process.alive:
                process.send(signal.SIGKILL)

    def _try(self, do: Callable[[], object]) -> None:
        try:
            do()
        except OSError as error:  # out of descriptors
            log(f"{self.run.name} cannot look for its processes: {error.strerror}")

    def reap(self) -> dict[str, object]:
        """How it ended, for the record. From here on its pid is anybody's."""
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
    """Without a status: nobody could wait for it."""
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return {
        "code": code if code is not None and code >= 0 else None,
        "signal": -code if code is not None and code < 0 else None,
        "oom": False,
        "cpu_s": None,
        "max_rss_bytes": None,
        "at": utc_now(),
    }
