"""A daemon that is stopped before it has a spawner: that is a stop or a restart, and no failure."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.daemon import Host, eventually, host_at
from tests.kits.fakes.fake_prefect import FakePrefect


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Host]:
    """A host whose daemon is going to wait for a spawner that takes connections and says nothing."""
    with host_at(FakePrefect(major=3)) as host, socket.socket(socket.AF_UNIX) as mute:
        path = host.root / "mute.sock"
        mute.bind(str(path))
        mute.listen()
        host.environ["RUNNERD_SPAWNER_SOCKET"] = str(path)
        yield host


def started_and_stopped(host: Host) -> int:
    """Start the daemon, stop it once its signals are handled; its exit status."""
    host.launch()
    eventually(lambda: host.ctl("health").returncode in (0, 1), "the daemon to answer", log=host.said)
    host.signal(signal.SIGTERM)
    return host.wait()


def test_a_stop_is_no_failure(starting: Host) -> None:
    assert started_and_stopped(starting) == 0, starting.said()
    assert " ready " not in starting.said()


def test_a_restart_is_no_failure(starting: Host, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        os.set_blocking(systemd.fileno(), False)
        starting.environ["NOTIFY_SOCKET"] = str(path)
        assert started_and_stopped(starting) == 75, starting.said()
