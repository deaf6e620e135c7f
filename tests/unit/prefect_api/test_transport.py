"""Every way a request can go wrong, and what comes of it: an error of ours, the health, and no secret told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from runnerd import __version__
from runnerd.core.errors import ApiAway, ApiDenied, ApiError, ApiRejected
from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.prefect_api import transport as transport_module
from runnerd.prefect_api.connections import open_client
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.health import STALE
from runnerd.prefect_api.transport import RENEW_AFTER_FAILURES, Reply, Transport

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
URL = "http://prefect.test:4200/api"
SECRET = "pnu_s3cr3t-key"
RUN = "6d1f3c0e-0d1b-4b41-9f3e-2b8a3f8e4c11"
Answer = Callable[[httpx.Request], httpx.Response]


class Clock:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


class Rig:
    """A transport over a scripted server; `seen` is what the server got, `told` what the health said."""

    def __init__(self, answer: Answer, *, url: str = URL, headers: dict[str, str] | None = None) -> None:
        self.seen: list[httpx.Request] = []
        self.told: list[ApiHealth] = []
        self.given = Credentials(key=SECRET)
        self.reads = 0
        self.clock = Clock()
        self.opened: list[httpx.AsyncClient] = []

        def record(request: httpx.Request) -> httpx.Response:
            self.seen.append(request)
            if request.url.path.endswith("/csrf-token") and answer is not csrf_server:
                return httpx.Response(422, json={"detail": "CSRF protection is disabled."})
            return answer(request)

        def open_one(_url: httpx.URL) -> httpx.AsyncClient:
            self.opened.append(httpx.AsyncClient(transport=httpx.MockTransport(record)))
            return self.opened[-1]

        self.transport = Transport(
            url=url,
            credentials=self._read,
            headers=headers or {},
            timeout_s=30,
            now=self.clock,
            open_client=open_one,
            on_health=self.told.append,
        )

    def _read(self) -> Credentials:
        self.reads += 1
        return self.given

    async def ask(self, method: str = "GET", path: str = "/x", **more: Any) -> Reply:
        try:
            return await self.transport.request(method, path, **more)
        finally:
            assert SECRET not in repr(self.transport.health)

    async def fail(self, kind: type[ApiError], method: str = "GET", path: str = "/x", **more: Any) -> Any:
        with pytest.raises(kind) as caught:
            await self.ask(method, path, **more)
        assert SECRET not in str(caught.value)
        # An exception of httpx in the chain would be in the traceback that somebody logs, headers and all.
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return caught.value

    @property
    def condition(self) -> ApiCondition:
        return self.transport.health.condition

    @property
    def detail(self) -> str:
        return self.transport.health.detail


def says(status: int, body: Any = None, **headers: str) -> Answer:
    return lambda request: httpx.Response(
        status, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def in_turn(*answers: Answer) -> Answer:
    left: Iterator[Answer] = iter(answers)
    return lambda request: next(left)(request)


def csrf_server(request: httpx.Request) -> httpx.Response:
    raise AssertionError("replaced by each test")


# --- what is sent -----------------------------------------------------------------------------------------------


async def test_a_request_carries_who_we_are_and_nothing_odd() -> None:
    rig = Rig(says(200, [1]), headers={"X-Proxy-Pass": "hunter2"})
    assert await rig.ask("POST", "/flow_runs/filter", body={"a": 1}) == Reply(200, [1])
    request = rig.seen[-1]
    assert str(request.url) == f"{URL}/flow_runs/filter"
    assert json.loads(request.content) == {"a": 1}
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    assert request.headers["X-Proxy-Pass"] == "hunter2"


async def test_basic_auth_wins_over_a_key() -> None:
    rig = Rig(says(200))
    rig.given = Credentials(key=SECRET, auth_string="user:pa:ss")
    await rig.ask()
    assert rig.seen[-1].headers["Authorization"] == "Basic dXNlcjpwYTpzcw=="


async def test_without_credentials_nothing_is_claimed() -> None:
    rig = Rig(says(200))
    rig.given = Credentials()
    await rig.ask()
    assert "Authorization" not in rig.seen[-1].headers


async def test_an_empty_body_is_none() -> None:
    assert await Rig(lambda request: httpx.Response(204)).ask("DELETE") == Reply(204, None)


async def test_real_clients_say_who_they_are_and_load_certificates_only_for_https() -> None:
    plain = open_client(httpx.URL("http://127.0.0.1/api"), timeout_s=3)
    safe = open_client(httpx.URL("https://prefect.test/api"), timeout_s=3)
    assert plain.headers["User-Agent"] == f"runnerd/{__version__}"
    assert plain.timeout == httpx.Timeout(3)
    assert not plain.trust_env
    await plain.aclose()
    await safe.aclose()


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 507, 599])
async def test_come_back_later(status: int) -> None:
    rig = Rig(says(status, {"exception_message": "Service Unavailable"}))
    error = await rig.fail(ApiAway, "POST", f"/flow_runs/{RUN}/set_state", body={})
    assert error.answered and error.retry_after_s is None
    assert rig.condition is ApiCondition.DEGRADED
    assert rig.detail == f"HTTP {status} from POST /flow_runs/{{id}}/set_state: Service Unavailable"
    assert RUN in str(error)


async def test_even_a_status_that_is_a_value_elsewhere_is_no_value_when_it_is_a_503() -> None:
    assert (await Rig(says(503)).fail(ApiAway, values=frozenset({404, 503}))).answered


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("Sun, 22 Nov 2026 12:01:30 GMT", 90.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("86400", 600.0),  # a mistake of somebody's must not keep a host away for a day
        ("-3", None),
        ("inf", None),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
async def test_retry_after(header: str, seconds: float | None) -> None:
    assert (await Rig(says(503, None, Retry_After=header)).fail(ApiAway)).retry_after_s == seconds


@pytest.mark.parametrize("status", [401, 403])
async def test_denied(status: int) -> None:
    rig = Rig(says(status, {"exception_message": "Unauthorized"}))
    await rig.fail(ApiDenied, "GET", f"/flow_runs/{RUN}", values=frozenset({404}))
    assert rig.condition is ApiCondition.DEGRADED
    expected = {
        401: "401: the API key is not accepted",
        403: "403: the API key may not GET /flow_runs/{id} (Unauthorized)",
    }
    assert rig.detail == expected[status]


async def test_a_rotated_key_heals_in_the_same_request() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        good = request.headers["Authorization"] == "Bearer new"
        return httpx.Response(200 if good else 401, json={})

    rig = Rig(answer)
    await rig.fail(ApiDenied)
    assert len(rig.seen) == 1  # the same key is not tried twice
    rig.given = Credentials(key="new")
    assert (await rig.ask()).status == 200
    assert rig.condition is ApiCondition.OK
    reads = rig.reads
    await rig.ask()
    assert rig.reads == reads  # a key that works is not read again


async def test_credentials_that_cannot_be_read_are_a_denial_that_heals() -> None:
    rig = Rig(says(200))
    readable = False

    def read() -> Credentials:
        if not readable:
            raise ApiDenied("cannot read the API key file /k: Permission denied")
        return Credentials(key=SECRET)

    rig.transport._read_credentials = read
    with pytest.raises(ApiDenied):
        await rig.ask()
    assert (rig.condition, rig.detail) == (
        ApiCondition.DEGRADED,
        "cannot read the API key file /k: Permission denied",
    )
    assert rig.seen == []
    readable = True
    assert (await rig.ask()).status == 200


async def test_other_4xx_is_this_requests_own_fault() -> None:
    detail = [
        {"loc": ["body", "schedules", 0, "cron"], "msg": "Field  required\n", "type": "missing", "input": SECRET},
        {"loc": ["body", "bogus"], "msg": "Extra inputs are not permitted", "input": SECRET},
    ]
    body = {"exception_message": "Invalid request received.", "exception_detail": detail, "request_body": SECRET}
    rig = Rig(says(422, body))
    error = await rig.fail(ApiRejected, "POST", "/deployments/", body={})
    assert error.status == 422
    assert str(error) == (
        "cannot POST /deployments/: HTTP 422: body.schedules.0.cron: Field required; "
        "body.bogus: Extra inputs are not permitted"
    )
    assert rig.condition is ApiCondition.OK


async def test_the_servers_words_are_shortened() -> None:
    error = await Rig(says(409, {"detail": "x" * 5000})).fail(ApiRejected)
    assert len(str(error)) < 400 and str(error).endswith("...")
    many = [{"loc": ["body"], "msg": f"m{n}"} for n in range(9)]
    assert "; and 6 more" in str(await Rig(says(422, {"exception_detail": many})).fail(ApiRejected))


async def test_a_4xx_without_words_says_so() -> None:
    assert "HTTP 418: no reason given" in str(await Rig(says(418)).fail(ApiRejected))


async def test_absence_is_a_value_where_the_caller_says_so() -> None:
    rig = Rig(says(404, {"detail": "Flow run not found"}))
    assert await rig.ask(values=frozenset({404})) == Reply(404, {"detail": "Flow run not found"})
    assert rig.condition is ApiCondition.OK
    assert (await rig.fail(ApiRejected)).status == 404


@pytest.mark.parametrize(
    "answer",
    [
        says(404, {"detail": "Not Found"}),
        says(404, {}),
        says(404),
        lambda request: httpx.Response(404, html="<h1>404 Not Found</h1><hr>nginx"),
        says(405, {"detail": "Method Not Allowed"}),
    ],
    ids=["framework", "empty object", "empty", "nginx", "405"],
)
async def test_a_404_that_is_not_prefects_proves_no_absence(answer: Answer) -> None:
    rig = Rig(answer)
    assert "is api.url right?" in str(await rig.fail(ApiAway, values=frozenset({404})))
    assert rig.condition is ApiCondition.DEGRADED


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"{", b"\xff\xfe", b'{"a": tru', b"[" * 10**6])
async def test_garbage_with_200_is_not_an_answer(content: bytes) -> None:
    rig = Rig(lambda request: httpx.Response(200, content=content))
    error = await rig.fail(ApiAway)
    assert error.answered and "HTTP 200 from GET /x is not JSON" in str(error)
    assert rig.condition is ApiCondition.DEGRADED


async def test_an_endless_answer_is_cut_off() -> None:
    pulled = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal pulled
            while True:
                pulled += 2**20
                yield b"[" * 2**20

    rig = Rig(lambda request: httpx.Response(200, stream=Endless()))
    await rig.fail(ApiAway)
    assert pulled <= transport_module.MAX_ANSWER_BYTES + 2**21


# --- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_keeps_the_method_the_body_and_on_the_same_host_the_key(status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            return httpx.Response(status, headers={"Location": f"https://prefect.test{request.url.path}"})
        return httpx.Response(200, json="there")

    rig = Rig(answer)
    assert (await rig.ask("POST", "/flows/", body={"name": "f"})).data == "there"
    last = rig.seen[-1]
    assert (last.method, last.url.scheme, json.loads(last.content)) == ("POST", "https", {"name": "f"})
    assert last.headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("url", "location"),
    [(URL, "http://elsewhere.test/api/x"), ("https://prefect.test/api", "http://prefect.test/api/x")],
    ids=["other host", "https to http"],
)
async def test_a_redirect_elsewhere_does_not_get_the_key(url: str, location: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if str(request.url) == location:
            return httpx.Response(200, json=1)
        return httpx.Response(307, headers={"Location": location})

    rig = Rig(answer, url=url, headers={"X-Pass": "hunter2"})
    await rig.ask()
    assert "Authorization" not in rig.seen[-1].headers and "X-Pass" not in rig.seen[-1].headers


async def test_redirects_in_a_circle_end() -> None:
    rig = Rig(says(307, None, Location="/api/x"))
    assert "redirects in a circle" in str(await rig.fail(ApiAway))
    assert len(rig.seen) == 5


async def test_a_redirect_that_leads_nowhere_is_not_an_answer() -> None:
    assert (await Rig(says(304)).fail(ApiAway)).answered


# --- CSRF ---------------------------------------------------------------------------------------------------------


class Csrf:
    """A server that wants tokens: one per client, each good until `expire`."""

    def __init__(self) -> None:
        self.token: dict[str, str] = {}
        self.fetched = 0
        self.refusal = "Invalid CSRF token or client identifier."
        self.lasts = timedelta(hours=1)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/csrf-token"):
            self.fetched += 1
            client = request.url.params["client"]
            self.token[client] = f"token{self.fetched}"
            expiration = (NOW + self.lasts * self.fetched).isoformat()
            return httpx.Response(200, json={"token": self.token[client], "client": client, "expiration": expiration})
        if request.method == "GET":
            return httpx.Response(200, json="read")
        client = request.headers.get("Prefect-Csrf-Client", "")
        if self.token.get(client) != request.headers.get("Prefect-Csrf-Token", "none"):
            return httpx.Response(403, json={"detail": self.refusal})
        return httpx.Response(201, json="changed")


def guarded() -> tuple[Rig, Csrf]:
    server = Csrf()
    rig = Rig(csrf_server)
    client = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda request: rig.seen.append(request) or server(request))
    )
    rig.transport._pool._open = lambda url: client
    return rig, server


async def test_a_token_is_fetched_once_and_only_for_changes() -> None:
    rig, server = guarded()
    assert (await rig.ask("GET")).data == "read" and server.fetched == 0
    for method in ("POST", "PATCH", "DELETE", "PUT"):
        assert (await rig.ask(method)).data == "changed"
    assert server.fetched == 1


async def test_an_expired_token_is_replaced_before_it_is_used() -> None:
    rig, server = guarded()
    await rig.ask("POST")
    rig.clock.at += server.lasts
    await rig.ask("POST")
    assert server.fetched == 2
    assert [request.url.path for request in rig.seen].count("/api/x") == 2


@pytest.mark.parametrize("words", ["Invalid CSRF token or client identifier.", "Missing client identifier."])
async def test_a_token_that_the_server_forgot_is_fetched_again(words: str) -> None:
    rig, server = guarded()
    await rig.ask("POST")
    server.token.clear()
    server.refusal = words
    assert (await rig.ask("POST")).data == "changed"
    assert server.fetched == 2


async def test_a_token_is_fetched_again_only_once() -> None:
    def never(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403, json={"detail": "Invalid CSRF token or client identifier."})

    rig = Rig(never)
    await rig.fail(ApiDenied, "POST")
    assert [request.url.path for request in rig.seen].count("/api/csrf-token") == 2


async def test_changes_at_the_same_time_share_one_token() -> None:
    rig, server = guarded()
    replies = await asyncio.gather(*(rig.ask("POST") for _ in range(5)))
    assert [reply.data for reply in replies] == ["changed"] * 5
    assert server.fetched == 1


async def test_a_server_without_csrf_is_asked_for_a_token_once() -> None:
    rig = Rig(says(200))
    for _ in range(3):
        await rig.ask("POST")
    assert [request.url.path for request in rig.seen].count("/api/csrf-token") == 1
    assert "Prefect-Csrf-Client" not in rig.seen[-1].headers


# --- no answer ----------------------------------------------------------------------------------------------------

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(reader, writer)
        except (asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def real_transport(
    url: str,
    *,
    timeout_s: float = 30,
    client_timeout: httpx.Timeout | None = None,
    headers: dict[str, str] | None = None,
) -> Transport:
    def open_one(at: httpx.URL) -> httpx.AsyncClient:
        client = open_client(at, timeout_s=timeout_s)
        client.timeout = client_timeout or client.timeout
        return client

    return Transport(
        url=url,
        credentials=lambda: Credentials(key=SECRET),
        headers=headers or {},
        timeout_s=timeout_s,
        now=lambda: NOW,
        open_client=open_one,
    )


async def broken(url: str, **more: Any) -> tuple[ApiAway, ApiHealth]:
    """Ask a real server over a real socket, and fail."""
    transport = real_transport(url, **more)
    try:
        with pytest.raises(ApiAway) as caught:
            await transport.request("GET", "/x")
    finally:
        await transport.close()
    assert not caught.value.answered and SECRET not in str(caught.value)
    assert transport.health.condition is ApiCondition.UNREACHABLE
    return caught.value, transport.health


@pytest.mark.real_io
@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1, 2",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1, 2",
        b"this is not HTTP at all\r\n\r\n",
    ],
    ids=["hangs up", "half a head", "half a body", "half a chunk", "no HTTP"],
)
async def test_half_an_answer_is_none(bytes_sent: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes_sent)
        await writer.drain()

    async with listening(serve) as url:
        _, health = await broken(url)
        assert health.detail == "the connection broke in the middle of an answer"


@pytest.mark.real_io
async def test_a_server_that_never_answers_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with listening(serve) as url:
        _, health = await broken(url, client_timeout=httpx.Timeout(60, read=0.05))
        assert health.detail == "no answer in time"


@pytest.mark.real_io
async def test_a_server_that_trickles_for_ever_is_given_up() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with listening(serve) as url:
        _, health = await broken(url, timeout_s=0.15, client_timeout=httpx.Timeout(60))
        assert health.detail == "no answer in time"


@pytest.mark.real_io
async def test_nobody_listens() -> None:
    async with listening(lambda reader, writer: asyncio.sleep(0)) as url:
        pass
    error, health = await broken(url)
    assert health.detail == "connection refused"
    assert str(error) == f"cannot reach Prefect at {url}: connection refused"


async def test_a_name_that_does_not_resolve() -> None:
    _, health = await broken("http://no-such-host.invalid/api")
    assert health.detail == "the host name does not resolve"


@pytest.mark.real_io
async def test_http_spoken_to_as_https() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`listening` waits for the end of a head that never comes."""

    server = await asyncio.start_server(lambda r, w: (w.write(b"HTTP/1.1 400 Bad\r\n\r\n"), w.close()), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, health = await broken(f"https://127.0.0.1:{port}/api")
        assert health.detail == "TLS failed; is it an https server?"


async def test_a_password_in_the_url_is_not_shown() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"{request.url}", request=request)

    rig = Rig(refuse, url=f"http://user:{SECRET}@prefect.test/api")
    assert "http://prefect.test/api: no connection" in str(await rig.fail(ApiAway))


@pytest.mark.real_io
@pytest.mark.parametrize("value", [f"{SECRET}\r\nX: y", f"{SECRET}ü"], ids=["line break", "not ASCII"])
async def test_a_malformed_header_is_not_quoted(value: str) -> None:
    async with listening(lambda reader, writer: asyncio.sleep(0)) as url:
        transport = real_transport(url, headers={"X-Pass": value})
        with pytest.raises(ApiAway, match="malformed") as caught:
            await transport.request("GET", "/x")
        assert SECRET not in str(caught.value) and caught.value.__suppress_context__
        await transport.close()


@pytest.mark.real_io
@pytest.mark.parametrize("bytes_sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1"], ids=["head", "body"])
async def test_a_request_that_is_cancelled_is_cancelled(bytes_sent: bytes) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes_sent)
        await writer.drain()
        asked.set()
        assert await reader.read() == b""
        hung_up.set()

    async with listening(serve) as url:
        transport = real_transport(url)
        task = asyncio.create_task(transport.request("GET", "/x"))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await hung_up.wait()
        assert transport.health.detail == "not asked yet"
        await transport.close()


@pytest.mark.real_io
async def test_a_request_leaves_no_cancellation_behind_in_the_task_that_asks() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7")
        await writer.drain()

    async with listening(serve) as url:
        transport = real_transport(url)
        assert (await transport.request("GET", "/x")).data == 7
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await transport.close()


async def test_after_several_failures_in_a_row_the_connections_are_made_anew() -> None:
    fail = True

    def answer(request: httpx.Request) -> httpx.Response:
        if fail:
            raise httpx.ReadError("", request=request)
        return httpx.Response(200, json=1)

    rig = Rig(answer)
    for count in range(2 * RENEW_AFTER_FAILURES):
        assert len(rig.opened) == (count - 1) // RENEW_AFTER_FAILURES + 1 if count else True
        with pytest.raises(ApiAway):
            await rig.ask()
    assert len(rig.opened) == 2 and all(client.is_closed for client in rig.opened)
    fail = False
    await rig.ask()
    assert len(rig.opened) == 3 and not rig.opened[-1].is_closed
    fail = True
    for _ in range(RENEW_AFTER_FAILURES - 1):  # an answer in between starts the count anew
        with pytest.raises(ApiAway):
            await rig.ask()
    fail = False
    await rig.ask()
    assert len(rig.opened) == 3


async def test_making_connections_anew_does_not_cut_off_an_answer_that_is_coming() -> None:
    release, waiting = asyncio.Event(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/slow"):
            waiting.set()
            await release.wait()
            return httpx.Response(200, json="in peace")
        raise httpx.ReadError("", request=request)

    opened: list[httpx.AsyncClient] = []

    def open_one(_url: httpx.URL) -> httpx.AsyncClient:
        opened.append(httpx.AsyncClient(transport=httpx.MockTransport(answer)))
        return opened[-1]

    transport = Transport(
        url=URL, credentials=Credentials, headers={}, timeout_s=30, now=lambda: NOW, open_client=open_one
    )
    slow = asyncio.create_task(transport.request("GET", "/slow"))
    await waiting.wait()
    for _ in range(RENEW_AFTER_FAILURES):
        with pytest.raises(ApiAway):
            await transport.request("GET", "/x")
    assert not opened[0].is_closed
    release.set()
    assert (await slow).data == "in peace"
    assert opened[0].is_closed


# --- health -------------------------------------------------------------------------------------------------------


async def test_health_moves_since_only_with_the_condition() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("", request=request)

    rig = Rig(in_turn(says(200), says(200), says(503), says(500), refuse, refuse, says(200)))
    assert (rig.condition, rig.detail) == (ApiCondition.UNREACHABLE, "not asked yet")
    for kind in (None, None, ApiAway, ApiAway, ApiAway, ApiAway, None):
        rig.clock.at += timedelta(minutes=1)
        if kind is None:
            await rig.ask()
        else:
            await rig.fail(kind)
    minutes = [((health.since - NOW) // timedelta(minutes=1), health.condition.value) for health in rig.told]
    assert minutes == [(1, "ok"), (3, "degraded"), (3, "degraded"), (5, "unreachable"), (7, "ok")]
    assert [health.detail for health in rig.told][1:4] == [
        "HTTP 503 from GET /x",
        "HTTP 500 from GET /x",
        "no connection",
    ]


async def test_what_fails_is_not_made_good_by_something_else() -> None:
    """An API that can be read and not written to is not well, however often it is polled."""
    other = "7a1f3c0e-0d1b-4b41-9f3e-2b8a3f8e4c22"

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503 if request.method == "POST" and broken else 200, json={})

    broken = True
    rig = Rig(answer)
    for _ in range(10):
        await rig.ask("GET", "/poll")
        await rig.fail(ApiAway, "POST", f"/flow_runs/{RUN}/set_state", body={})
        rig.clock.at += timedelta(seconds=30)
    assert [health.condition.value for health in rig.told] == ["ok", "degraded"]
    assert rig.detail == "HTTP 503 from POST /flow_runs/{id}/set_state"
    broken = False
    await rig.ask("POST", f"/flow_runs/{other}/set_state", body={})
    assert rig.condition is ApiCondition.OK


async def test_what_failed_and_is_not_asked_for_any_more_is_forgotten() -> None:
    rig = Rig(lambda request: httpx.Response(200 if request.method == "GET" else 503, json={}))
    await rig.fail(ApiAway, "POST", "/x", body={})
    await rig.ask("GET", "/poll")
    assert rig.condition is ApiCondition.DEGRADED
    rig.clock.at += STALE
    await rig.ask("GET", "/poll")
    assert rig.condition is ApiCondition.OK


async def test_a_request_that_cannot_be_wrong_is_not_rejected_but_in_vain() -> None:
    for status in (400, 404, 409, 413, 418, 422):
        rig = Rig(says(status, {"detail": "no such thing"}))
        error = await rig.fail(ApiAway, "POST", "/deployments/get_scheduled_flow_runs", body={}, sure=True)
        assert f"HTTP {status} from POST /deployments/get_scheduled_flow_runs: no such thing" in str(error)
        assert rig.condition is ApiCondition.DEGRADED


async def test_the_epoch_grows_with_each_trouble() -> None:
    rig = Rig(in_turn(says(200), says(503), says(503), says(200), says(401), says(200)))
    epochs = []
    for kind in (None, ApiAway, ApiAway, None, ApiDenied, None):
        await rig.ask() if kind is None else await rig.fail(kind)
        epochs.append(rig.transport.epoch)
    assert epochs == [0, 1, 1, 1, 2, 2]
