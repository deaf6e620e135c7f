"""Control requests on both doors, against a real listener: any bytes get a proper answer, and the next request too."""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from runnerd.control.http.listener import Listener
from runnerd.control.http.router import Access, Router
from runnerd.control.routes.table import build_routes
from tests.kits.fakes.fake_host import FakeHost
from tests.kits.fakes.raw_http import parse, read_all
from tests.kits.fakes.serving import ListLog, Serving, serving
from tests.kits.fuzzing import NUMBERS, TEXTS, answered_in_time, fuzz

RUN = "aaaa1111-0000-4000-8000-000000000001"
ROUTES = build_routes(host=FakeHost(outputs=Path("/nowhere")), log=ListLog())
STATUSES = {200, 201, 202, 400, 403, 404, 405, 408, 409, 410, 413, 422, 431, 501, 503, 505}
WHOLE = {200, 201, 202}
PERCENT = ["%", "%zz", "%00", "%0d%0a", "%ed%a0%80", "%ff", "%c2%85", "%2f", "%2e%2e", "%25", "+", "?", "#", "//", "é"]
KEYS = "run state history deployment follow offset hours unknown".split()
MEMBERS = (
    "all base_job_template concurrency_limit deployment description flow_run_id name now parameters paused priority"
    " reason runs tags timeout_s type update unknown"
).split()


@dataclass(frozen=True)
class Ask:
    """The bytes of a request, and whether they come over TCP."""

    data: bytes
    public: bool


@dataclass(frozen=True)
class Doors:
    """The listener behind both doors, and its log."""

    served: Serving
    address: tuple[str, int]


@contextmanager
def both_doors() -> Iterator[Doors]:
    """A host with a run, a deployment and a pool."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as served:
        served.call(served.host.runs.put, RUN)
        served.call(served.host.deployments.put, "d-1", "nightly")
        (Path(folder) / f"{RUN}.log").write_text("hello\n")
        routes = [one for one in build_routes(host=served.host, log=served.log) if one.access is Access.PUBLIC]
        listener = Listener(router=Router(routes, guard=None), log=served.log)
        listening = socket.create_server(("127.0.0.1", 0))
        asyncio.run_coroutine_threadsafe(listener.start([listening]), served.loop).result(60)
        try:
            yield Doors(served=served, address=listening.getsockname())
        finally:
            asyncio.run_coroutine_threadsafe(listener.close(), served.loop).result(60)


def ask(doors: Doors, request: Ask) -> bytes:
    """Send the bytes and no more; everything that comes back."""
    family = socket.AF_INET if request.public else socket.AF_UNIX
    with socket.socket(family) as client:
        client.settimeout(60)
        client.connect(doors.address if request.public else doors.served.socket)
        try:
            client.sendall(request.data)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before it was read whole: the answer can still be read
        return read_all(client)


def asking(doors: Doors) -> Callable[[Ask], None]:
    def control_requests(request: Ask) -> None:
        with answered_in_time(request):
            answer = ask(doors, request)
        if answer:
            check(answer)
        assert parse(ask(doors, Ask(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n", request.public)))[0] == 200
        odd = [line for line in doors.served.log.lines if line[0] != "info"]
        assert not odd, odd
        doors.served.log.lines.clear()

    return control_requests


def check(answer: bytes) -> None:
    status, headers, body = parse(answer)
    assert status in STATUSES, answer[:500]
    if status in WHOLE or "content-length" not in headers or not body:
        return
    assert len(body) == int(headers["content-length"])
    assert headers["content-type"] == "application/problem+json"
    problem = json.loads(body)
    assert problem["status"] == status
    assert problem["detail"].isprintable()
    assert 10 < len(problem["detail"]) < 1500


# --- requests -------------------------------------------------------------------------------------------------

texts = st.sampled_from(TEXTS) | st.text(max_size=5)
segments = st.sampled_from([RUN, "aaaa", "nightly", "etl%2Fnightly", "p", *PERCENT]) | texts.map(
    lambda text: "".join(f"%{byte:02x}" for byte in text.encode(errors="surrogatepass"))
)
values = st.recursive(
    st.none() | st.booleans() | st.sampled_from(NUMBERS) | texts | st.sampled_from([RUN, "nightly", "etl", "process"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
bodies = st.dictionaries(st.sampled_from(MEMBERS) | texts, values, max_size=4)
WIRES: list[Callable[[bytes], bytes]] = [
    lambda body: body,
    lambda body: body,
    lambda body: body,
    lambda body: body[: len(body) // 2],
    lambda body: body.replace(b"1", b"1e400"),
    lambda body: body.replace(b"null", b"NaN"),
    lambda body: body.replace(b"true", b"-Infinity"),
    lambda body: body.replace(b'"', b'"\\ud800', 1),
    lambda body: body[:-1] + b', "name": 1, "name": 2}',
    lambda body: body + b"\xff",
    lambda body: body.decode().encode("utf-16"),
    lambda body: b'{"parameters": ' + b"[" * 2000 + body + b"]" * 2000 + b"}",
    lambda body: b'{"parameters": {"a": ' + b'{"a":' * 99 + b"1" + b"}" * 99 + b"}}",
    lambda body: b'{"parameters": {"a": ' + b"9" * 5000 + b"}}",
    lambda body: b" " * 2**20 + body,
]
HEADERS = [
    b"Content-Length: -1",
    b"Content-Length: 1" + b"0" * 30,
    b"Content-Length: " + b"9" * 5000,
    b"Content-Length: 1\r\nContent-Length: 2",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Expect: 100-continue",
    b"Upgrade: h2c\r\nConnection: upgrade",
    b"Host: y",
    b"X: \x00",
    b"X: \xff\x85",
    b"X" * 20_000 + b": y",
    b" folded",
    b": nothing",
    b"Content-Encoding: gzip",
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request of a real route, with parts that are odd."""
    route = draw(st.sampled_from(ROUTES))
    path = "/".join(draw(segments) if part == "*" else part for part in route.path.split("/"))
    query = draw(
        st.lists(
            st.tuples(st.sampled_from("run state history deployment follow offset hours".split()), segments), max_size=2
        )
    )
    target = path + ("?" + "&".join(f"{name}={value}" for name, value in query) if query else "")
    method = draw(st.sampled_from([route.method] * 6 + ["GET", "POST", "HEAD", "OPTIONS", "DELETE", "get", "\0", ""]))
    body = b""
    if method == "POST":
        body = draw(st.sampled_from(WIRES))(json.dumps(draw(bodies)).encode())
    extra = draw(st.lists(st.sampled_from(HEADERS), max_size=1))
    head = [f"{method} {target} HTTP/1.1".encode(errors="surrogatepass"), b"Host: x", *extra]
    if body and not extra:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


slips = st.tuples(requests(), st.integers(0, 300), st.binary(max_size=3)).map(
    lambda it: it[0][: it[1]] + it[2] + it[0][it[1] + 1 :]
)
asks: st.SearchStrategy[Any] = st.builds(Ask, data=requests() | slips | st.binary(max_size=100), public=st.booleans())


def test_control_requests() -> None:
    with both_doors() as doors:
        fuzz(asks, asking(doors), examples=100, found=FOUND)


FOUND = [
    Ask(b"A %e2%80%aa HTTP/0.0\n\n", public=False),
    Ask(b"\0 /v1/runs/" + b"%c3%a9" * 300 + b" HTTP/1.1\r\n\r\n", public=False),
]
