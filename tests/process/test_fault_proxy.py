"""The fault-injecting proxy in front of a small real server."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.kits.daemon import eventually
from tests.kits.fault_proxy import (
    DAEMON,
    FLOW,
    Call,
    Fault,
    FaultProxy,
    acted,
    answer,
    drop,
    garbage,
    half,
    hang,
    login,
    lost,
    slow,
)

RUNNERD, PREFECT = {"User-Agent": "runnerd/1.0"}, {"User-Agent": "prefect/3.8.8 (API 0.8.4)"}


class Backend(BaseHTTPRequestHandler):
    """Says what it was asked; /chunked in chunks, /ws becomes an echo."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def log_message(self, *_: Any) -> None:
        return None

    def do_GET(self) -> None:
        self._echo(b"")

    def do_POST(self) -> None:
        self._echo(self.rfile.read(int(self.headers["Content-Length"])))

    def _echo(self, body: bytes) -> None:
        self.asked.append(f"{self.command} {self.path}")
        if self.headers.get("Upgrade"):
            return self._upgraded()
        said = json.dumps({"path": self.path, "body": body.decode(), "agent": self.headers["User-Agent"]}).encode()
        self.send_response(201 if body else 200)
        if self.path == "/api/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (said[:5], said[5:]):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    def _upgraded(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.end_headers()
        while block := self.rfile.read1(100):
            self.wfile.write(block)
        self.close_connection = True


@pytest.fixture
def backend() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (Backend,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(backend: ThreadingHTTPServer) -> Iterator[FaultProxy]:
    with FaultProxy(upstream=f"http://127.0.0.1:{backend.server_port}/api") as one:
        yield one


def asked_of(backend: ThreadingHTTPServer) -> list[str]:
    return list(backend.RequestHandlerClass.asked)  # type: ignore[attr-defined]


class Client(http.client.HTTPConnection):
    def __init__(self, proxy: FaultProxy, who: dict[str, str] = RUNNERD) -> None:
        super().__init__("127.0.0.1", proxy.port, timeout=60)
        self.who = who

    def ask(self, method: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
        self.request(method, path, body, self.who)
        return self.getresponse()

    def said(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        answer = self.ask(method, path, body)
        return answer.status, answer.read()


def over(proxy: FaultProxy, count: int) -> list[Call]:
    """The calls, once so many are over: one is noted when its asker may have had the answer already."""
    eventually(lambda: len(proxy.calls) >= count, f"{count} calls to be over")
    return proxy.calls


def test_what_passes_is_unchanged_over_one_connection_and_recorded(proxy: FaultProxy) -> None:
    client = Client(proxy)
    status, text = client.said("POST", "/api/flows/?limit=3", '{"name": "x"}')
    assert status == 201
    said = json.loads(text)
    assert said == {"path": "/api/flows/?limit=3", "body": '{"name": "x"}', "agent": "runnerd/1.0"}
    first = client.sock
    assert client.said("GET", "/api/chunked")[0] == 200
    assert client.sock is first
    client.close()
    one, two = over(proxy, 2)
    assert (one.n, one.who, one.method, one.path, one.body, one.status) == (
        1, DAEMON, "POST", "/api/flows/", {"name": "x"}, 201,
    )  # fmt: skip
    assert (two.n, two.path, two.body, two.status, two.fault) == (2, "/api/chunked", None, 200, None)
    assert proxy.url == f"http://127.0.0.1:{proxy.port}/api"


def test_a_request_in_chunks_is_understood(proxy: FaultProxy) -> None:
    client = Client(proxy)
    parts = (part for part in (b'{"a"', b": 1}"))
    client.request("POST", "/api/x", parts, RUNNERD, encode_chunked=True)
    assert json.loads(client.getresponse().read())["body"] == '{"a": 1}'
    client.close()


def test_a_rule_strikes_the_calls_it_is_for(proxy: FaultProxy, backend: ThreadingHTTPServer) -> None:
    proxy.add(answer(429, retry_after="7"), method="POST", path=r"/set_state$", who=DAEMON, first=2, count=1)
    daemon, flow = Client(proxy), Client(proxy, PREFECT)
    assert daemon.said("GET", "/api/1/set_state")[0] == 200
    assert daemon.said("POST", "/api/1/set_state/no", "x")[0] == 201
    assert flow.said("POST", "/api/1/set_state", "x")[0] == 201
    assert [daemon.said("POST", "/api/1/set_state", "x")[0] for _ in range(3)] == [201, 429, 201]
    assert len(asked_of(backend)) == 5
    assert [call.who for call in over(proxy, 6)].count(FLOW) == 1
    proxy.add(answer(503), who=FLOW)
    refused = flow.ask("GET", "/api/x")
    assert (refused.status, refused.headers["Retry-After"]) == (503, None)
    assert "exception_message" in json.loads(refused.read())
    with proxy.broken(answer(404), path="/api/gone"):
        assert daemon.said("GET", "/api/gone") == (404, b'{"detail": "Not Found"}')
    assert daemon.said("GET", "/api/x")[0] == 200
    proxy.clear()
    assert flow.said("GET", "/api/x")[0] == 200
    daemon.close()
    flow.close()


def test_the_date_of_a_retry_after_goes_out(proxy: FaultProxy) -> None:
    proxy.add(answer(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"))
    client = Client(proxy)
    assert client.ask("GET", "/api/x").headers["Retry-After"] == "Wed, 21 Oct 2026 07:28:00 GMT"
    client.close()


@pytest.mark.parametrize(
    ("fault", "acts"), [(lost(), True), (half(), True), (drop(), False)], ids=lambda value: str(value)
)
def test_an_answer_that_does_not_come(
    proxy: FaultProxy, backend: ThreadingHTTPServer, fault: Fault, acts: bool
) -> None:
    client = Client(proxy)
    with (
        proxy.broken(fault, path="/api/x"),
        pytest.raises((http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionResetError)),
    ):
        client.said("GET", "/api/x")
    client.close()
    assert asked_of(backend) == (["GET /api/x"] if acts else [])
    assert [(call.status, call.fault) for call in over(proxy, 1)] == [(0, fault.kind)]
    assert client.said("GET", "/api/x")[0] == 200
    client.close()


def test_the_server_acts_and_the_asker_hears_an_error(proxy: FaultProxy, backend: ThreadingHTTPServer) -> None:
    proxy.add(acted(504), count=1)
    client = Client(proxy)
    assert [client.said("GET", "/api/x")[0] for _ in range(2)] == [504, 200]
    assert len(asked_of(backend)) == 2
    client.close()


def test_garbage_and_a_login_page_are_200(proxy: FaultProxy, backend: ThreadingHTTPServer) -> None:
    client = Client(proxy)
    with proxy.broken(garbage()):
        status, text = client.said("GET", "/api/x")
    assert status == 200
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(text)
    with proxy.broken(login()):
        away = client.ask("GET", "/api/x")
        assert (away.status, away.headers["Location"], away.read()) == (302, "/login", b"")
        assert client.said("GET", "/login") == (200, b"<html>please log in</html>")
    assert asked_of(backend) == []
    client.close()


def test_a_hanging_call_is_let_go_when_its_rule_is(proxy: FaultProxy, backend: ThreadingHTTPServer) -> None:
    client = Client(proxy)
    rule = proxy.add(hang(), count=1)
    client.request("GET", "/api/x", headers=RUNNERD)
    other = Client(proxy)
    assert other.said("GET", "/api/y")[0] == 200
    other.close()
    assert client.sock is not None
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.getresponse()
    client.sock.settimeout(60)
    proxy.remove(rule)
    with pytest.raises(http.client.RemoteDisconnected):
        client.getresponse()
    client.close()
    assert asked_of(backend) == ["GET /api/y"]


def test_a_slow_answer_comes(proxy: FaultProxy) -> None:
    client = Client(proxy)
    with proxy.broken(slow(0.01)):
        assert client.said("GET", "/api/x")[0] == 200
    client.close()


def test_connecting_is_refused_until_it_is_not(proxy: FaultProxy) -> None:
    client = Client(proxy)
    assert client.said("GET", "/api/x")[0] == 200
    proxy.refuse()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
        client.said("GET", "/api/x")  # the connection it had is gone as well
    client.close()
    with pytest.raises(ConnectionRefusedError):
        client.said("GET", "/api/x")
    client.close()
    proxy.listen()
    assert client.said("GET", "/api/x")[0] == 200
    client.close()


def test_a_websocket_passes_both_ways(proxy: FaultProxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), 60) as client:
        head = "GET /api/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        client.sendall(head.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.recv(1000)
        assert answer.startswith(b"HTTP/1.1 101 ")
        for word in (b"one", b"two"):
            client.sendall(word)
            assert client.recv(1000) == word


def test_the_hook_hears_of_each_call_before_and_after(backend: ThreadingHTTPServer) -> None:
    heard: list[tuple[object, ...]] = []

    def on_call(n: int, who: str, method: str, path: str, *, when: str) -> None:
        heard.append((n, who, method, path, when, len(asked_of(backend))))

    with FaultProxy(upstream=f"http://127.0.0.1:{backend.server_port}/api", on_call=on_call) as proxy:
        proxy.add(answer(500), first=2)
        client = Client(proxy)
        client.said("GET", "/api/x")
        client.said("GET", "/api/y")
        client.close()
    assert heard == [
        (1, DAEMON, "GET", "/api/x", "before", 0),
        (1, DAEMON, "GET", "/api/x", "after", 1),
        (2, DAEMON, "GET", "/api/y", "before", 1),
    ]
