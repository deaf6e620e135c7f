"""The control server and requests that are wrong, cut short, too large or too many."""

import json
from contextlib import ExitStack

import pytest

from runnerd.control.http.exchange import BODY_MAX
from runnerd.control.http.listener import CONNECTIONS
from tests.kits.fakes.raw_http import ask, connect, parse, raw, read_all
from tests.kits.fakes.serving import Serving


def test_a_path_that_is_not_there_and_a_method_that_is_not_for_it(served: Serving) -> None:
    assert ask(served, "GET", "/v2/status")[0] == 404
    assert ask(served, "GET", "/")[0] == 404
    status, headers, _ = raw(served, b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert (status, headers["allow"]) == (405, "GET")
    status, headers, body = raw(served, b"HEAD /v1/reload HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, headers["allow"], body) == (405, "POST", b"")
    assert served.host.asked == []


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"timeout_s": NaN}'])
def test_a_body_that_is_not_json(served: Serving, body: bytes) -> None:
    assert ask(served, "POST", "/v1/drain", body)[0] == 400
    assert served.host.asked == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\n\r\n",  # no Host
        b"GET /v1/runs/%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/runs?state=%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
    ],
)
def test_what_is_not_http_is_400(served: Serving, request_bytes: bytes) -> None:
    status, headers, _ = raw(served, request_bytes)
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert served.host.asked == []


def test_a_head_without_end_is_refused(served: Serving) -> None:
    status, _, _ = raw(served, b"GET /v1/status HTTP/1.1\r\nX: " + b"a" * 100_000)
    assert status == 431


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_413_even_while_it_is_being_sent(served: Serving, announced: bool) -> None:
    body = b"x" * (BODY_MAX + 1)
    head = b"POST /v1/drain HTTP/1.1\r\nHost: x\r\n"
    if announced:
        request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        request = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    assert raw(served, request)[0] == 413


def test_a_body_of_just_the_limit_is_read(served: Serving) -> None:
    served.call(served.host.deployments.put, "d-1", "nightly")
    filled = b'{"parameters": {"a": "' + b"x" * (BODY_MAX - 25) + b'"}}'
    assert len(filled) == BODY_MAX
    assert ask(served, "POST", "/v1/deployments/nightly/run", filled)[0] == 201


def test_a_body_may_be_announced_before_it_is_sent(served: Serving) -> None:
    with connect(served) as client:
        client.sendall(b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 100")
        client.sendall(b"{}")
        assert parse(read_all(client))[0] == 200


def test_an_error_in_one_request_is_logged_and_ends_that_one_only(served: Serving) -> None:
    served.host.metrics_fail = True
    assert ask(served, "GET", "/v1/metrics")[0] == 500
    assert [level for level, _, _ in served.log.lines] == ["exception"]
    assert ask(served, "GET", "/v1/status")[0] == 200


def test_a_peer_that_leaves_in_the_middle_is_nobodys_fault(served: Serving) -> None:
    with connect(served) as client:
        client.sendall(b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    with connect(served):
        pass
    assert ask(served, "GET", "/v1/status")[0] == 200
    assert served.log.lines == []
    assert served.host.asked == []


def test_one_connection_too_many_is_told_so_and_the_others_live_on(served: Serving) -> None:
    with ExitStack() as stack:
        waiting = [stack.enter_context(connect(served)) for _ in range(CONNECTIONS)]
        with connect(served) as client:  # accepted in order: the others are all in before this one
            status, _, body = parse(read_all(client))
        assert status == 503
        assert str(CONNECTIONS) in json.loads(body)["detail"]
        waiting[0].sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert parse(read_all(waiting[0]))[0] == 200
