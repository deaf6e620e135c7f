"""The control server's socket: its file, its mode, a stale one, a live one, one from systemd, and TCP."""

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.fake_host import FakeHost, ListLog, Serving, serving
from fakes.raw_http import ask, parse

from runnerd.control.server import ControlServer, read_only_listener
from runnerd.errors import ControlError


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it


def server_on(path: Path, **settings: object) -> ControlServer:
    host = FakeHost(outputs=path.parent)
    return ControlServer(host=host, log=ListLog(), socket_path=str(path), **settings)  # type: ignore[arg-type]


def start_and_close(server: ControlServer, look: object = None) -> None:
    async def work() -> None:
        await server.start()
        if callable(look):
            look()
        await server.close()

    asyncio.run(work())


def test_the_socket_file_has_its_mode_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    modes = []
    start_and_close(server_on(path, group="no-such-group"), lambda: modes.append(stat.S_IMODE(path.stat().st_mode)))
    assert modes == [0o660]
    assert not path.exists()


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    start_and_close(server_on(path))
    assert not path.exists()


def test_a_live_socket_is_left_alone_and_its_owner_named(served: Serving) -> None:
    with pytest.raises(ControlError, match=rf"another runnerd is running \(pid {os.getpid()}\)"):
        start_and_close(server_on(Path(served.socket)))
    assert ask(served, "GET", "/v1/status")[0] == 200


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(ControlError, match="no socket is in the way"):
        start_and_close(server_on(path))
    assert path.read_text() == "precious"


def test_a_directory_that_is_missing_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"cannot listen on .*: No such file or directory"):
        start_and_close(server_on(tmp_path / "missing" / "control.sock"))


def test_only_our_own_socket_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    def replace() -> None:
        path.unlink()
        path.write_text("somebody else's")

    start_and_close(server_on(path), replace)
    assert path.read_text() == "somebody else's"


def test_a_socket_from_systemd_is_used_and_its_file_left(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def work() -> bytes:
        with socket.socket(socket.AF_UNIX) as passed:
            passed.bind(str(path))
            passed.listen()
            server = server_on(tmp_path / "unused.sock", sockets=[passed.dup()])
            await server.start()
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            await server.close()
        return answer

    assert asyncio.run(work()).startswith(b"HTTP/1.1 200")
    assert path.exists()
    assert not (tmp_path / "unused.sock").exists()


def test_a_tcp_port_shows_health_and_metrics_and_nothing_else(tmp_path: Path) -> None:
    async def fetch(port: int, request: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return parse(answer)[0]

    async def work() -> list[int]:
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        listener = read_only_listener(host=FakeHost(outputs=tmp_path), log=ListLog())
        await listener.start([listening])
        statuses = [
            await fetch(port, b"GET /v1/%s HTTP/1.1\r\nHost: x\r\n\r\n" % what)
            for what in (b"health", b"metrics", b"status", b"config")
        ]
        statuses.append(await fetch(port, b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))
        await listener.close()
        return statuses

    assert asyncio.run(work()) == [200, 200, 404, 404, 404]
