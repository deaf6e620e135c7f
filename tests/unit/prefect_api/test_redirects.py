"""redirects.py through the transport: credentials are for one origin, and a Location may be anything."""

from __future__ import annotations

import json

import httpx
import pytest

from runnerd.core.errors import ApiAway, ApiDenied
from runnerd.prefect_api.redirects import HOPS_MAX
from tests.kits.transport import SECRET, URL, Answer, Rig, says

PRIVATE = {"X-Pass": "hunter2"}


def redirect(location: str, status: int = 307) -> Answer:
    """A server of URL that redirects there, where everything is answered with 1."""

    def answer(request: httpx.Request) -> httpx.Response:
        if str(request.url).startswith(URL) and "again" not in str(request.url):
            return httpx.Response(status, headers=[(b"Location", location.encode())])
        return httpx.Response(200, json=1)

    return answer


def credentials_of(request: httpx.Request) -> set[str]:
    return {name for name in ("authorization", "x-pass", "prefect-csrf-token") if name in request.headers}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("location", ["/api/again", f"{URL}/again", "again", "http://PREFECT.test:4200/api/again"])
async def test_a_redirect_within_the_origin_keeps_the_method_the_body_and_the_key(status: int, location: str) -> None:
    rig = Rig(redirect(location, status), headers=PRIVATE)
    assert (await rig.ask("POST", "/flows/", body={"name": "f"})).data == 1
    last = rig.seen[-1]
    assert (last.method, json.loads(last.content)) == ("POST", {"name": "f"})
    assert last.headers["Authorization"] == f"Bearer {SECRET}"
    assert last.headers["X-Pass"] == "hunter2"


@pytest.mark.parametrize(
    "location",
    [
        "http://elsewhere.test:4200/api/x",
        "http://prefect.test:4201/api/x",
        "http://prefect.test/api/x",
        "https://prefect.test:4200/api/x",
        "https://prefect.test/api/x",
        "//elsewhere.test/api/x",
        "http://prefect.test:4200@elsewhere.test/",
        "http://user:word@elsewhere.test/api/x",
    ],
)
async def test_another_origin_gets_no_credentials(location: str) -> None:
    rig = Rig(redirect(location), headers=PRIVATE)
    assert (await rig.ask("POST", "/x", body={})).data == 1
    assert len(rig.seen) == 3
    assert (credentials_of(rig.seen[-1]), rig.seen[-1].url.userinfo) == (set(), b"")
    assert rig.transport.skew is None, "nor does its clock count"


async def test_https_to_http_gets_no_credentials() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            return httpx.Response(200, json=1)
        return httpx.Response(307, headers={"Location": "http://prefect.test/api/x"})

    rig = Rig(answer, url="https://prefect.test/api", headers=PRIVATE)
    await rig.ask()
    assert credentials_of(rig.seen[-1]) == set()


async def test_the_userinfo_of_another_url_does_not_replace_ours() -> None:
    rig = Rig(redirect("http://user:word@prefect.test:4200/api/again"))
    await rig.ask()
    assert rig.seen[-1].headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_denial_of_another_origin_says_what_to_correct(status: int) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "https":
            return httpx.Response(status, json={})
        return httpx.Response(308, headers={"Location": "https://prefect.test/api/x"})

    rig = Rig(answer)
    await rig.fail(ApiDenied)
    where = "redirected to https://prefect.test:443, which gets no credentials; correct api.url"
    assert rig.detail == f"{status}: {where}"


OLD_HTTPX = pytest.mark.skipif(httpx.__version__ < "0.25", reason="it takes such a port for none at all")


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://prefect.test:99999/", "redirects to "),
        ("http://prefect.test:0/", "redirects to "),
        pytest.param("http://prefect.test:" + "9" * 100 + "/", "redirects to ", marks=OLD_HTTPX),
        ("ftp://prefect.test/api", "redirects to what is no http or https URL"),
        ("javascript:alert(1)", "redirects to "),
        ("http://", "leads through too many redirects"),
        ("http://[::1", "redirects to "),
        ("http://xn--\ud7ff/", "redirects to "),
        ("\x00", "redirects to "),
        ("/" + "x" * 100_000, "redirects to a URL of more than 8192 characters"),
    ],
)
async def test_a_location_to_which_no_request_can_be_sent(location: str, why: str) -> None:
    rig = Rig(redirect(location))
    error = await rig.fail(ApiAway)
    # Older httpx resolves some of these to a URL of the server, which redirects again.
    found = next(words for words in (why, "leads through too many redirects") if f" GET /x {words}" in str(error))
    assert error.answered
    assert len(rig.seen) == (HOPS_MAX if "too many" in found else 1)


async def test_redirects_in_a_circle_end() -> None:
    rig = Rig(says(307, None, Location="/api/x"))
    assert "HTTP 307 from GET /x leads through too many redirects" in str(await rig.fail(ApiAway))
    assert len(rig.seen) == HOPS_MAX


async def test_a_redirect_that_leads_nowhere_is_not_an_answer() -> None:
    assert (await Rig(says(304)).fail(ApiAway)).answered
