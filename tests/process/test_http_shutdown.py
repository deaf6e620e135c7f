"""POST /shutdown of a whole daemon: a stop as by systemctl, also under systemd, where no job tells of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.daemon import Host, eventually, host_at
from tests.kits.fakes.fake_prefect import FakePrefect

TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def host() -> Iterator[Host]:
    with host_at(FakePrefect(major=3)) as host:
        yield host


def with_web(host: Host) -> int:
    """Start the daemon with a port and a token; the port, once it is open."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (host.root / "token").write_text(TOKEN)
    main = (host.config / "runnerd.yaml").read_text()
    host.write_main(f"{main}http: {{listen: '127.0.0.1:{port}', token_file: '{host.root}/token'}}\n")
    host.start()
    eventually(lambda: listens(port), "the port to be open", log=host.said)
    return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def shut_down(port: int) -> object:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/shutdown", method="POST", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_shutdown_ends_the_daemon_and_is_answered(host: Host) -> None:
    assert shut_down(with_web(host)) == {"message": "OK"}
    assert host.wait() == 0, host.said()


def test_a_shutdown_under_systemd_is_no_restart(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        os.set_blocking(systemd.fileno(), False)
        host.environ["NOTIFY_SOCKET"] = str(path)
        shut_down(with_web(host))
        assert host.wait() == 0, "75 would have systemd start it again"
        host.start()
        host.signal(signal.SIGTERM)
        assert host.wait() == 75, f"a signal without a job is a restart: {host.said()}"
