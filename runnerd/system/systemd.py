"""Notifies systemd of readiness, status and the watchdog, and asks systemd which job a stop belongs to.

Invariant: status text is ASCII and READY=1 is sent alone, because sdnotify encodes Latin-1 and swallows every error:
a datagram with one other character would be lost whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import sdnotify

from runnerd.system.run_program import run_program

LIST_JOBS = ("systemctl", "list-jobs", "--no-legend", "--no-pager", "--plain")
_JOBS_FILE_MAX_AGE_S = 30.0


class Job(StrEnum):
    """The systemd job that a SIGTERM belongs to."""

    RESTART = "restart"
    STOP = "stop"
    UNKNOWN = "unknown"


class Notifier(Protocol):
    """Sends one sd_notify(3) datagram: `sdnotify.SystemdNotifier`, which has no types, or a test's recorder."""

    def notify(self, state: str) -> None: ...


class Systemd:
    """Talks to the service manager; without one, `present` is False and notifications are dropped."""

    def __init__(self, *, environ: Mapping[str, str], pid: int, notifier: Notifier | None = None) -> None:
        self._environ = environ
        self._pid = pid
        self.present = bool(environ.get("NOTIFY_SOCKET"))
        self._notifier: Notifier = notifier or _notifier()
        self._status = ""
        self._jobs_file = environ.get("RUNNERD_JOBS_FILE")
        self._started_at = time.time()

    @property
    def has_jobs_file(self) -> bool:
        """Whether our unit writes systemd's jobs to a file before it stops us, so that no bus is needed to ask."""
        return self._jobs_file is not None

    def notify_ready(self) -> None:
        """Send READY=1, after the start and after each reload."""
        self._send("READY=1")

    def notify_reloading(self) -> None:
        """Send RELOADING=1 with the time in one datagram: without it Type=notify-reload waits until its timeout."""
        micros = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={micros}")

    def notify_stopping(self) -> None:
        """Send STOPPING=1."""
        self._send("STOPPING=1")

    def notify_status(self, text: str) -> None:
        """Send one line for `systemctl status`, if the line has changed."""
        if text != self._status:
            self._status = text
            self._send("STATUS=" + text.encode("ascii", "replace").decode("ascii").replace("\n", " "))

    def extend_timeout(self, seconds: float) -> None:
        """Ask for more time to start or stop; the caller repeats this within that time."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def feed_watchdog(self) -> None:
        """Send WATCHDOG=1."""
        self._send("WATCHDOG=1")

    def watchdog_s(self) -> float | None:
        """Return the watchdog's interval in seconds; None where it is off or meant for another process."""
        usec = self._environ.get("WATCHDOG_USEC", "")
        pid = self._environ.get("WATCHDOG_PID", "")
        if not usec.isdigit() or int(usec) == 0 or (pid and pid != str(self._pid)):
            return None
        return int(usec) / 1_000_000

    def _send(self, state: str) -> None:
        if self.present:
            self._notifier.notify(state)

    async def find_job(self, *, timeout_s: float = 5.0) -> Job:
        """Return the job under way for our unit: a restart leaves the flows alone, a stop ends them."""
        unit = own_unit()
        if unit is None:
            return Job.UNKNOWN
        from_file = parse_jobs(self._read_jobs_file(), unit)
        return from_file if from_file is not Job.UNKNOWN else await self._ask_job(unit, timeout_s)

    def _read_jobs_file(self) -> str:
        """Read what ExecStop= has just written; "" for a file older than this daemon, or of a stop long ago."""
        if self._jobs_file is None:
            return ""
        try:
            with open(self._jobs_file, encoding="utf-8", errors="replace") as file:
                written = os.fstat(file.fileno()).st_mtime
                return file.read() if max(self._started_at, time.time() - _JOBS_FILE_MAX_AGE_S) <= written else ""
        except OSError:
            return ""

    async def _ask_job(self, unit: str, timeout_s: float) -> Job:
        answer = await run_program(*LIST_JOBS, limit_s=timeout_s)
        return parse_jobs(answer.out, unit)


def _notifier() -> Notifier:
    notifier = sdnotify.SystemdNotifier()
    if notifier.socket is not None:
        # A manager that is too busy to read loses a message: else send() would stop the whole daemon.
        notifier.socket.setblocking(False)
    made: Notifier = notifier
    return made


def parse_jobs(text: str, unit: str) -> Job:
    """Find the job of our unit in what `systemctl list-jobs` prints; a shutdown of the machine is a stop too."""
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 3:
            kinds[fields[1]] = fields[2]
    if any(target in kinds for target in ("shutdown.target", "reboot.target", "poweroff.target", "halt.target")):
        return Job.STOP
    kind = kinds.get(unit)
    if kind in ("restart", "try-restart", "start"):
        return Job.RESTART
    return Job.STOP if kind == "stop" else Job.UNKNOWN


def own_unit(cgroup_file: str = "/proc/self/cgroup") -> str | None:
    """Return the name of the service this process belongs to, by its cgroup; None for no service."""
    try:
        with open(cgroup_file, encoding="utf-8") as file:
            paths = [line.rstrip("\n").split(":", 2)[2] for line in file if line.startswith("0::")]
    except OSError:
        return None
    names = [part for path in paths for part in path.split("/") if part.endswith(".service")]
    return names[-1] if names else None


def listen_fds(environ: Mapping[str, str], pid: int) -> list[int]:
    """Return the descriptors of socket activation; none where they are for another process."""
    if environ.get("LISTEN_PID") != str(pid):
        return []
    count = environ.get("LISTEN_FDS", "0")
    return list(range(3, 3 + int(count))) if count.isdigit() else []


def unset_variables(environ: dict[str, str] | os._Environ[str]) -> None:
    """Remove systemd's variables from the environment, so that no child notifies systemd in our name."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
