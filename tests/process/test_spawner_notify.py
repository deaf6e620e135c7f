"""What a spawner tells the service manager that started it, and that nobody it starts can speak in its name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import uuid
from collections.abc import Iterator

import pytest

from tests.kits.spawner import LIMIT_S, SpawnerUnderTest

OF_SYSTEMD = {
    "WATCHDOG_USEC": "1000000000",
    "LISTEN_FDS": "0",
    "INVOCATION_ID": "1" * 32,
    "JOURNAL_STREAM": "1:2",
    "CREDENTIALS_DIRECTORY": "/run/credentials/x",
}


class Manager:
    """A notification socket, at a path or abstract."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(LIMIT_S)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self) -> str:
        return self.socket.recv(4096).decode()

    def start(self, spawner: SpawnerUnderTest, *extra: str) -> None:
        variables = [f"{name}={value}" for name, value in {"NOTIFY_SOCKET": self.address, **OF_SYSTEMD}.items()]
        spawner.start(*extra, through=("/usr/bin/env", *variables))


@contextlib.contextmanager
def managed(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    try:
        yield manager
    finally:
        manager.socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, idle_spawner: SpawnerUnderTest) -> Iterator[Manager]:
    address = f"@{uuid.uuid4().hex}" if request.param == "abstract" else str(idle_spawner.home / "notify")
    with managed(address) as made:
        yield made


def test_ready_once_it_serves(manager: Manager, idle_spawner: SpawnerUnderTest) -> None:
    manager.start(idle_spawner)
    assert manager.hear() == "READY=1\nSTATUS=0 live runs"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(idle_spawner.socket)
        assert b"hello" in client.recv(4096)
    assert idle_spawner.end() == 0
    assert manager.hear() == "STOPPING=1"


async def test_how_many_live(manager: Manager, idle_spawner: SpawnerUnderTest) -> None:
    manager.start(idle_spawner)
    manager.hear()
    async with idle_spawner.link() as link:
        for number, key in enumerate(("one", "two"), 1):
            await link.client.spawn(idle_spawner.spec(key, mode=("wait",)))
            assert await asyncio.to_thread(manager.hear) == f"STATUS={number} live runs"
        await link.client.stop(key="one", attempt=0, reason="cancel", timeout_s=0)
        await link.until("one", "exited")
        assert await asyncio.to_thread(manager.hear) == "STATUS=1 live runs"
    assert idle_spawner.end(signal.SIGKILL) == -signal.SIGKILL
    manager.start(idle_spawner)
    assert manager.hear() == "READY=1\nSTATUS=1 live runs"


async def test_a_run_gets_nothing_of_it(manager: Manager, idle_spawner: SpawnerUnderTest) -> None:
    manager.start(idle_spawner)
    async with idle_spawner.link() as link:
        await link.client.spawn(idle_spawner.spec("run", mode=("facts",), environment={"A": "b"}))
        await link.until("run", "exited")
    assert json.loads(idle_spawner.output("run"))["environment"] == {"A": "b"}


def test_a_manager_that_is_gone_holds_up_nobody(idle_spawner: SpawnerUnderTest) -> None:
    path = idle_spawner.home / "notify"
    with managed(str(path)) as gone:
        pass
    gone.start(idle_spawner)
    assert "cannot send READY=1 to the service manager: Connection refused" in idle_spawner.said()
    os.unlink(path)
    assert idle_spawner.end() == 0
    assert "cannot send STOPPING=1 to the service manager: No such file or directory" in idle_spawner.said()


async def test_a_manager_that_does_not_read(idle_spawner: SpawnerUnderTest) -> None:
    """Its queue is full: runs start and end, and what was not told is told once there is room."""
    with managed(str(idle_spawner.home / "notify")) as manager:
        manager.start(idle_spawner)
        async with idle_spawner.link() as link:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        other.sendto(b"X=1", manager.address)
            await link.client.spawn(idle_spawner.spec("run", mode=("wait",)))
            assert await asyncio.to_thread(manager.hear) == "READY=1\nSTATUS=0 live runs"
            while await asyncio.to_thread(manager.hear) != "STATUS=1 live runs":
                await link.client.list()  # something happens
