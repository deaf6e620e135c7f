"""public_port.py with a token and TLS: the paths of Prefect's Runner over a real port."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runnerd.config.in_force import ConfigInForce
from runnerd.control.contract import Refused
from runnerd.control.http.exchange import BODY_MAX
from runnerd.control.http.listener import CONNECTIONS
from runnerd.control.public_port import PublicPort
from runnerd.control.routes.table import build_routes, build_web_routes
from runnerd.core.problems import Problems
from runnerd.core.settings import Config, HttpSettings
from runnerd.files.bounded_calls import BoundedCalls
from tests.kits.certificates import make_certificate
from tests.kits.fakes.fake_host import FakeHost
from tests.kits.fakes.raw_http import parse
from tests.kits.fakes.serving import ListLog
from tests.kits.nouns import settings

pytestmark = pytest.mark.real_io
TOKEN = "t" * 32


class Web:
    """A PublicPort at work with these settings of http."""

    def __init__(self, folder: Path) -> None:
        self.log = ListLog()
        self.host = FakeHost(outputs=folder)
        self.host.deployments.put("d-1", "nightly")
        self.host.runs.put("r-1")
        self.stops: list[str] = []
        routes = build_routes(host=self.host, log=self.log)
        web = build_web_routes(host=self.host, log=self.log, stop=lambda: self.stops.append("stop"))
        self.problems = Problems()
        self.port = PublicPort(routes=routes, more=web, problems=self.problems, log=self.log, calls=BoundedCalls())
        self.http = HttpSettings(listen=free_address())
        self.token_file = folder / "token"
        self.token_file.write_text(f"{TOKEN}\n")
        self.config = ConfigInForce(Config(settings=settings(http=self.http)))

    def want(self, **changes: Any) -> None:
        self.http = replace(self.http, **changes)
        self.config.replace(Config(settings=settings(http=self.http)))

    async def connect(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert self.http.listen is not None
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", self.http.listen[1], ssl=context)
            except ConnectionError:
                await asyncio.sleep(0.01)

    async def ask(
        self, request: str, body: bytes = b"", *, token: str | None = TOKEN, context: ssl.SSLContext | None = None
    ) -> tuple[int, Any]:
        """The status and the JSON of the answer, once somebody listens."""
        reader, writer = await self.connect(context)
        shown = f"Authorization: Bearer {token}\r\n" if token is not None else ""
        head = f"{request} HTTP/1.1\r\nHost: 127.0.0.1\r\n{shown}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        status, _, answer = parse(await reader.read())
        writer.close()
        return status, json.loads(answer)

    async def until(self, happened: Callable[[], object]) -> None:
        while not happened():
            await asyncio.sleep(0.01)


def free_address() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address: tuple[str, int] = probe.getsockname()
        return address


@asynccontextmanager
async def web(folder: Path, **http: Any) -> AsyncIterator[Web]:
    it = Web(folder)
    it.want(**{"token_file": str(it.token_file), **http})
    keeping = asyncio.create_task(it.port.run(config=it.config))
    try:
        yield it
        assert not keeping.done()
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


async def test_the_paths_of_prefects_runner(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        deployment = it.host.deployments.listing()[0]["id"]
        assert await it.ask("GET /health", token=None) == (200, {"message": "OK"})
        status, count = await it.ask("GET /run_count", token=None)
        assert (status, count) == (200, 1)
        status, made = await it.ask(f"POST /deployment/{deployment}/run", b'{"rows": 3}')
        assert (status, set(made)) == (201, {"flow_run_id"})
        assert await it.ask("POST /shutdown") == (200, {"message": "OK"})
        await it.until(lambda: it.stops)
        assert it.stops == ["stop"]
        lines = [fields for _, event, fields in it.log.lines if event == "control"]
        assert [line["verb"] for line in lines] == ["run", "shutdown"]
        assert TOKEN not in str(it.log.lines)


async def test_what_changes_something_needs_the_token(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        deployment = it.host.deployments.listing()[0]["id"]
        for request in ("POST /shutdown", f"POST /deployment/{deployment}/run"):
            for token in (None, "x" * 32):
                assert (await it.ask(request, token=token))[0] == 401
        it.want(token_file=None)
        await it.until(lambda: it.port._gate.settings.token is None)
        assert (await it.ask("POST /shutdown"))[0] == 403
        assert it.stops == []


async def test_what_is_wrong_with_a_run_is_said_in_detail(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        deployment = it.host.deployments.listing()[0]["id"]
        path = f"POST /deployment/{deployment}/run"
        assert (await it.ask("POST /deployment/7/run"))[1]["detail"] == "Not Found"
        assert (await it.ask(f"POST /deployment/{it.host.deployments.listing()[0]['name']}/run"))[0] == 404
        for body in (b"[]", b"{", b'{"a": NaN}', b"\xff"):
            assert (await it.ask(path, body))[0] == 422
        assert (await it.ask(path, b" " * (BODY_MAX + 1)))[0] == 413
        it.host.refusal = Refused(status=422, detail="'x' is not an integer")
        status, problem = await it.ask(path)
        assert (status, problem["detail"]) == (400, "Error creating flow run: 'x' is not an integer")


async def test_a_host_that_is_not_well(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        it.host.well = False
        assert await it.ask("GET /health", token=None) == (503, {"message": "Runner is unresponsive at this time"})


@pytest.mark.parametrize("content", [b"short", b"", b"two words of sufficient length", b"\xff" * 20, None])
async def test_a_token_that_cannot_be_used_admits_nobody(tmp_path: Path, content: bytes | None) -> None:
    async with web(tmp_path) as it:
        assert (await it.ask("POST /shutdown"))[0] == 200
        if content is None:
            it.token_file.unlink()
        else:
            it.token_file.write_bytes(content)
        it.want()
        await it.until(lambda: it.port._gate.settings.token_problem)
        assert (await it.ask("POST /shutdown"))[0] == 503
        (problem,) = it.problems.all()
        assert str(it.token_file) in problem.message and "http.token_file" in problem.message
        it.token_file.write_text("u" * 32)
        it.want()
        await it.until(lambda: it.port._gate.settings.token == "u" * 32)
        assert (await it.ask("POST /shutdown", token="u" * 32))[0] == 200
        assert it.problems.all() == []


async def test_an_address_of_others_needs_the_token_for_all(tmp_path: Path) -> None:
    async with web(tmp_path, listen=("0.0.0.0", free_address()[1])) as it:
        assert (await it.ask("GET /health", token=None))[0] == 401
        assert (await it.ask("GET /v1/metrics", token=None))[0] == 401
        assert (await it.ask("GET /health"))[0] == 200


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


async def test_tls_and_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    async with web(tmp_path, certificate=str(certificate), key=str(key)) as it:
        assert await it.ask("GET /health", context=trusting(certificate)) == (200, {"message": "OK"})
        assert (await it.ask("POST /shutdown", context=trusting(certificate)))[0] == 200
        (tmp_path / "next").mkdir()
        other, other_key = make_certificate(tmp_path / "next")
        os.replace(other_key, key)
        it.want()  # a certificate without its key, as between two writes
        await it.until(lambda: it.problems.all())
        assert "the last good one stays in use" in it.problems.all()[0].message
        assert (await it.ask("GET /health", context=trusting(certificate)))[0] == 200
        trusted = trusting(other)
        os.replace(other, certificate)
        it.want()
        await it.until(lambda: not it.problems.all())
        assert (await it.ask("GET /health", context=trusted))[0] == 200


async def test_a_peer_that_does_not_talk_tls_is_left(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    async with web(tmp_path, certificate=str(certificate), key=str(key)) as it:
        await it.ask("GET /health", context=trusting(certificate))
        reader, writer = await it.connect()
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with_nothing = await reader.read()
        writer.close()
        assert b"200" not in with_nothing[:20]
        assert (await it.ask("GET /health", context=trusting(certificate)))[0] == 200
        assert not [line for line in it.log.lines if line[0] == "exception"]


@pytest.mark.parametrize("tls", [False, True])
async def test_silent_peers_take_no_more_than_their_places(tmp_path: Path, tls: bool) -> None:
    certificate, key = make_certificate(tmp_path)
    files = {"certificate": str(certificate), "key": str(key)} if tls else {}
    context = trusting(certificate) if tls else None
    async with web(tmp_path, **files) as it:
        await it.ask("GET /health", context=context)
        silent = [await it.connect() for _ in range(CONNECTIONS)]
        await it.until(lambda: len(it.port._listener._tasks) >= CONNECTIONS)
        reader, writer = await it.connect()
        assert b"200" not in (await reader.read())[:20], "answered at once, with 503 or nothing"
        for _, one in (*silent, (reader, writer)):
            one.close()
        await it.until(lambda: len(it.port._listener._tasks) < CONNECTIONS)
        assert (await it.ask("GET /health", context=context))[0] == 200


async def test_from_tls_to_none_and_back_at_the_same_address(tmp_path: Path) -> None:
    """The next socket mostly has the number of the last one."""
    certificate, key = make_certificate(tmp_path)
    files: dict[str, Any] = {"certificate": str(certificate), "key": str(key)}
    async with web(tmp_path, **files) as it, asyncio.timeout(60):
        for _ in range(2):
            assert (await it.ask("GET /health", context=trusting(certificate)))[0] == 200
            it.want(certificate=None, key=None)
            await it.until(lambda: it.port._at == (it.http.listen, False))
            assert (await it.ask("GET /health"))[0] == 200
            it.want(**files)
            await it.until(lambda: it.port._at == (it.http.listen, True))


async def test_a_key_that_is_absent_is_told_by_its_name(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    key.unlink()
    async with web(tmp_path, certificate=str(certificate), key=str(key)) as it:
        await it.until(lambda: it.problems.all())
        (problem,) = it.problems.all()
        words = f"cannot use {certificate} (http.certificate): its key {key}: No such file or directory"
        assert problem.message == words


async def test_a_path_that_there_is_none_of_is_answered_with_one_of_this_port(tmp_path: Path) -> None:
    async with web(tmp_path) as it:
        status, document = await it.ask("GET /v1/status")
        assert (status, document["detail"]) == (404, "there is no path /v1/status; /v1/health is one")
        assert (await it.ask("GET /v1/health"))[0] == 200


@pytest.mark.parametrize("flaw", ["absent", "no key", "encrypted"])
async def test_a_certificate_that_cannot_be_used_is_told_and_nothing_listens(tmp_path: Path, flaw: str) -> None:
    certificate, key = make_certificate(tmp_path)
    if flaw == "absent":
        certificate.unlink()
    elif flaw == "encrypted":
        text = key.read_text()
        key.write_text(
            text.replace(
                "PRIVATE KEY-----\n", "PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1
            )
        )
    async with web(tmp_path, certificate=str(certificate), key=None if flaw == "no key" else str(key)) as it:
        await it.until(lambda: it.problems.all())
        (problem,) = it.problems.all()
        assert problem.message.startswith(f"cannot use {certificate} (http.certificate): ")
        with socket.socket() as probe:
            assert probe.connect_ex(it.http.listen or ("", 0)) != 0
