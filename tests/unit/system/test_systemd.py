"""systemd.py and watchdog.py: datagrams on a real socket, feeding the watchdog, and the job of a stop."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sdnotify

from runnerd.processes.protocol import boot_id
from runnerd.system.systemd import Job, Systemd, listen_fds, own_unit, parse_jobs, unset_variables
from runnerd.system.watchdog import Pulse, feed_watchdog
from tests.kits.nouns import LogLines, log_to

PID = 4711


@dataclass
class Manager:
    """systemd's end of NOTIFY_SOCKET."""

    socket: socket.socket
    systemd: Systemd

    def heard(self) -> list[bytes]:
        """Each datagram that has come."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(65536))
            except BlockingIOError:
                return found


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver:
        receiver.bind(address)
        notifier = sdnotify.SystemdNotifier()
        with notifier.socket:
            environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(PID)}
            yield Manager(socket=receiver, systemd=Systemd(environ=environ, pid=PID, notifier=notifier))


# --- what is told -----------------------------------------------------------------------------------------------


def test_each_notification_is_a_datagram_of_its_own(manager: Manager) -> None:
    manager.systemd.notify_status("3 running")
    manager.systemd.notify_ready()
    manager.systemd.extend_timeout(1.5)
    manager.systemd.feed_watchdog()
    manager.systemd.notify_stopping()
    assert manager.heard() == [
        b"STATUS=3 running",
        b"READY=1",
        b"EXTEND_TIMEOUT_USEC=1500000",
        b"WATCHDOG=1",
        b"STOPPING=1",
    ]


def test_reloading_says_when(manager: Manager) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.systemd.notify_reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    (told,) = manager.heard()
    first, _, micros = told.partition(b"\nMONOTONIC_USEC=")
    assert first == b"RELOADING=1"
    assert before <= int(micros) <= after


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2 running, API ok", b"2 running, API ok"),
        ("flow \N{LATIN SMALL LETTER E WITH ACUTE}\N{HORIZONTAL ELLIPSIS} \N{RIGHTWARDS ARROW}", b"flow ?? ?"),
        ("\N{PILE OF POO}", b"?"),
        ("one\nREADY=1\ntwo", b"one READY=1 two"),
    ],
)
def test_status_is_one_line_of_ascii(manager: Manager, text: str, told: bytes) -> None:
    """sdnotify encodes Latin-1 and swallows the error: the datagram would be lost whole."""
    manager.systemd.notify_status(text)
    assert manager.heard() == [b"STATUS=" + told]


def test_status_is_told_when_it_changed(manager: Manager) -> None:
    for text in ("a", "a", "b", "b", "a"):
        manager.systemd.notify_status(text)
    assert manager.heard() == [b"STATUS=a", b"STATUS=b", b"STATUS=a"]


class Recorder:
    """A notifier that keeps what it is given."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def notify(self, state: str) -> None:
        self.told.append(state)


async def test_where_there_is_no_systemd_nothing_is_told() -> None:
    recorder = Recorder()
    systemd = Systemd(environ={}, pid=PID, notifier=recorder)
    systemd.notify_ready()
    systemd.notify_reloading()
    systemd.notify_status("x")
    systemd.feed_watchdog()
    await feed_watchdog(systemd=systemd, pulse=Pulse(clock=time.monotonic), log=log_to(LogLines()))
    assert (systemd.present, recorder.told) == (False, [])


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_s_interval(environ: dict[str, str], seconds: float | None) -> None:
    assert Systemd(environ=environ, pid=PID, notifier=Recorder()).watchdog_s() == seconds


# --- the loops --------------------------------------------------------------------------------------------------


async def for_seconds(seconds: float, *loops: asyncio.Task[None]) -> None:
    await asyncio.sleep(seconds)
    for loop in loops:
        loop.cancel()
    await asyncio.wait(loops)


async def test_the_watchdog_is_not_fed_while_a_loop_is_stuck(manager: Manager) -> None:
    lines = LogLines()
    pulse = Pulse(clock=asyncio.get_running_loop().time)
    feeding = asyncio.create_task(feed_watchdog(systemd=manager.systemd, pulse=pulse, log=log_to(lines)))
    pulse.beat("poll", within_s=21)
    pulse.beat("register", within_s=1e9)
    await asyncio.sleep(21.5)
    assert manager.heard() == [b"WATCHDOG=1"] * 5, "every five seconds of ten"
    await asyncio.sleep(20)
    assert manager.heard() == []
    pulse.beat("poll", within_s=100)
    await for_seconds(10, feeding)
    assert manager.heard() == [b"WATCHDOG=1"] * 2
    assert {(line["event"], line["stuck"]) for line in lines.all()} == {("not feeding the watchdog", "poll")}
    assert lines.events("error") != []


# --- which job --------------------------------------------------------------------------------------------------

UNIT = "runnerd.service"


@pytest.mark.parametrize(
    ("jobs", "job"),
    [
        ("", Job.UNKNOWN),
        ("No jobs running.", Job.UNKNOWN),
        ("123 runnerd.service restart running", Job.RESTART),
        ("123 runnerd.service try-restart waiting", Job.RESTART),
        ("123 runnerd.service start waiting", Job.RESTART),
        ("123 runnerd.service stop running", Job.STOP),
        ("123 runnerd.service reload running", Job.UNKNOWN),
        ("7 other.service stop running\n8 runnerd.service restart waiting\n", Job.RESTART),
        ("7 other.service stop running", Job.UNKNOWN),
        ("7 runnerd.service restart running\n9 reboot.target start waiting", Job.STOP),
        ("7 runnerd.service stop running\n9 poweroff.target start waiting", Job.STOP),
        ("9 shutdown.target start waiting", Job.STOP),
        ("9 halt.target start waiting", Job.STOP),
        ("garbage\n\n1 2\n", Job.UNKNOWN),
    ],
)
def test_parse_jobs(jobs: str, job: Job) -> None:
    assert parse_jobs(jobs, UNIT) is job


async def test_without_systemctl_the_job_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    systemd = Systemd(environ={}, pid=PID, notifier=Recorder())
    assert await systemd.find_job() is Job.UNKNOWN


def left_jobs(file: Path, *, age_s: float) -> str:
    """What a daemon that was just made believes of a file that old."""
    file.write_text("1 runnerd.service stop running\n")
    systemd = Systemd(environ={"RUNNERD_JOBS_FILE": str(file)}, pid=PID, notifier=Recorder())
    written = time.time() - age_s
    os.utime(file, (written, written))
    return systemd._read_jobs_file()


def test_what_the_unit_said_of_its_stop_is_believed_while_it_is_new(tmp_path: Path) -> None:
    file = tmp_path / "jobs"
    assert parse_jobs(left_jobs(file, age_s=-1.0), UNIT) is Job.STOP
    assert left_jobs(file, age_s=5.0) == ""  # it was there before the daemon
    file.unlink()
    assert Systemd(environ={"RUNNERD_JOBS_FILE": str(file)}, pid=PID, notifier=Recorder())._read_jobs_file() == ""
    assert Systemd(environ={}, pid=PID, notifier=Recorder())._read_jobs_file() == ""


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/runnerd.service\n", "runnerd.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/runnerd.service\n", "runnerd.service"),
        ("12:pids:/system.slice/old.service\n0::/system.slice/runnerd.service/sub\n", "runnerd.service"),
        ("0::/user.slice/session-2.scope\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_own_unit(tmp_path: Path, cgroup: str, unit: str | None) -> None:
    file = tmp_path / "cgroup"
    file.write_text(cgroup)
    assert own_unit(str(file)) == unit


def test_own_unit_where_there_is_no_proc(tmp_path: Path) -> None:
    assert own_unit(str(tmp_path / "none")) is None


# --- what is inherited --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "fds"),
    [
        ({}, []),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": "2"}, [3, 4]),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, []),
        ({"LISTEN_PID": str(PID)}, []),
        ({"LISTEN_PID": str(PID), "LISTEN_FDS": "-1"}, []),
    ],
)
def test_sockets_of_activation(environ: dict[str, str], fds: list[int]) -> None:
    assert listen_fds(environ, PID) == fds


def test_no_child_speaks_in_our_name() -> None:
    names = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]
    environ = {**dict.fromkeys(names, "x"), "PATH": "/bin"}
    unset_variables(environ)
    assert environ == {"PATH": "/bin"}
    unset_variables(environ)


def test_boot_id_stays_the_same() -> None:
    assert boot_id() == boot_id() != ""
    if os.path.exists("/proc/sys/kernel/random/boot_id"):
        assert len(boot_id()) == 36
