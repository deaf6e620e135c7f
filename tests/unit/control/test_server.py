"""server.py: the socket of the control server: its file, its mode, stale, in use, from systemd, and TCP."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runnerd.config.in_force import ConfigInForce
from runnerd.control.public_port import PublicPort
from runnerd.control.routes.table import build_routes
from runnerd.control.server import ControlServer
from runnerd.core.errors import ControlError
from runnerd.core.problems import Problems
from runnerd.core.settings import Config, HttpSettings
from runnerd.files.bounded_calls import BoundedCalls
from tests.kits.fakes.fake_host import FakeHost
from tests.kits.fakes.raw_http import ask, parse
from tests.kits.fakes.serving import ListLog, Serving, serving
from tests.kits.nouns import settings

pytestmark = pytest.mark.real_io


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it


def server_on(path: Path, **settings: object) -> ControlServer:
    host = FakeHost(outputs=path.parent)
    return ControlServer(
        host=host, problems=Problems(), log=ListLog(), socket_path=str(path), calls=BoundedCalls(), **settings
    )  # type: ignore[arg-type]


async def start_and_close(server: ControlServer, look: object = None) -> None:
    await server.start()
    if callable(look):
        look()
    await server.close()


async def test_the_socket_file_has_its_mode_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    modes = []
    await start_and_close(
        server_on(path, group="no-such-group"), lambda: modes.append(stat.S_IMODE(path.stat().st_mode))
    )
    assert modes == [0o660]
    assert not path.exists()


async def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    await start_and_close(server_on(path))
    assert not path.exists()


async def test_a_live_socket_is_left_alone_and_its_owner_named(served: Serving) -> None:
    with pytest.raises(ControlError, match=rf"another runnerd is running there \(pid {os.getpid()}\)"):
        await start_and_close(server_on(Path(served.socket)))
    assert ask(served, "GET", "/v1/status")[0] == 200


async def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(ControlError, match="the file there is not a socket"):
        await start_and_close(server_on(path))
    assert path.read_text() == "precious"


async def test_a_directory_that_is_missing_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"cannot listen on .*: No such file or directory"):
        await start_and_close(server_on(tmp_path / "missing" / "control.sock"))


async def test_only_our_own_socket_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    def replace() -> None:
        path.unlink()
        path.write_text("somebody else's")

    await start_and_close(server_on(path), replace)
    assert path.read_text() == "somebody else's"


async def test_a_socket_from_systemd_is_used_and_its_file_left(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
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
    assert answer.startswith(b"HTTP/1.1 200")
    assert path.exists()
    assert not (tmp_path / "unused.sock").exists()


# --- TCP: http.listen -------------------------------------------------------------------------------------------


class Public:
    """A PublicPort at work; `want` is what the configuration says next."""

    def __init__(self, folder: Path) -> None:
        self.log = ListLog()
        routes = build_routes(host=FakeHost(outputs=folder), log=self.log)
        self.port = PublicPort(routes=routes, problems=Problems(), log=self.log, calls=BoundedCalls())
        self.config = ConfigInForce(Config(settings=settings()))
        self.address: tuple[str, int] | None = None

    def want(self, address: tuple[str, int] | None) -> None:
        self.address = address
        self.config.replace(Config(settings=settings(http=HttpSettings(listen=address))))

    async def status(self, request: bytes) -> int:
        """The answer's status, once somebody listens."""
        assert self.address is not None
        while True:
            try:
                reader, writer = await asyncio.open_connection(*self.address)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return parse(answer)[0]

    async def health(self) -> int:
        return await self.status(b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")


@asynccontextmanager
async def public(folder: Path) -> AsyncIterator[Public]:
    it = Public(folder)
    keeping = asyncio.create_task(it.port.run(config=it.config))
    try:
        yield it
        assert not keeping.done()
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


def free_address() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address: tuple[str, int] = probe.getsockname()
        return address


async def test_a_tcp_port_shows_health_and_metrics_and_nothing_else(tmp_path: Path) -> None:
    async with public(tmp_path) as it:
        it.want(free_address())
        statuses = [
            await it.status(b"GET /v1/%s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % what)
            for what in (b"health", b"metrics", b"status", b"config")
        ]
        statuses.append(await it.status(b"POST /v1/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"))
    assert statuses == [200, 200, 404, 404, 404]


async def test_a_tcp_port_is_where_the_configuration_has_it_now(tmp_path: Path) -> None:
    async with public(tmp_path) as it:
        first = free_address()
        it.want(first)
        assert await it.health() == 200
        it.want(free_address())
        assert await it.health() == 200
        assert not is_open(first)
        last = it.address
        it.want(None)
        while is_open(last):
            await asyncio.sleep(0.01)


def is_open(address: tuple[str, int] | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address or ("", 0)) == 0


async def test_a_tcp_port_that_is_taken_is_told_once_and_tried_again(tmp_path: Path) -> None:
    async with public(tmp_path) as it:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            it.want(taken.getsockname())
            while it.port.problem is None:
                await asyncio.sleep(0.01)
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            assert it.port.problem == f"cannot listen on {where} (http.listen): Address already in use"
            it.config.replaced.set()  # a reload that changes nothing of it
            while it.config.replaced.is_set():
                await asyncio.sleep(0)
            assert [line[1] for line in it.log.lines] == ["cannot serve health and metrics"]
        it.config.replaced.set()
        assert await it.health() == 200
        assert it.port.problem is None
