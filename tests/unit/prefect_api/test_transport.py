"""transport.py: what a request carries, every way it can be refused, and what is no answer."""

from __future__ import annotations

import json

import httpx
import pytest

from runnerd import __version__
from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.core.prefect import ApiCondition
from runnerd.prefect_api.connections import open_client
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.transport import Reply
from tests.kits.transport import RUN, SECRET, URL, Answer, Rig, says

# --- what is sent ---------------------------------------------------------------------------------------------


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


# --- refusals -------------------------------------------------------------------------------------------------


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

    rig.transport._known_credentials = read
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
        "cannot POST /deployments/: HTTP 422: schedules[0].cron: Field required; bogus: Extra inputs are not permitted"
    )
    assert rig.condition is ApiCondition.OK


async def test_the_servers_words_are_shortened() -> None:
    error = await Rig(says(409, {"detail": "x" * 5000})).fail(ApiRejected)
    assert len(str(error)) < 1100 and str(error).endswith("...")
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


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"{", b"\xff\xfe", b'{"a": tru', b"[" * 10**5])
async def test_garbage_with_200_is_not_an_answer(content: bytes) -> None:
    rig = Rig(lambda request: httpx.Response(200, content=content))
    error = await rig.fail(ApiAway)
    assert error.answered and "HTTP 200 from GET /x is not JSON" in str(error)
    assert rig.condition is ApiCondition.DEGRADED


@pytest.mark.parametrize(
    ("error", "unsure"),
    [
        (httpx.ReadTimeout, True),
        (httpx.ReadError, True),
        (httpx.RemoteProtocolError, True),
        (httpx.ConnectError, False),
        (httpx.ConnectTimeout, False),
        (httpx.PoolTimeout, False),
    ],
)
async def test_whether_a_request_may_have_taken_effect(error: type[httpx.TransportError], unsure: bool) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("", request=request)

    assert (await Rig(fail).fail(ApiAway, "DELETE")).unsure is unsure
