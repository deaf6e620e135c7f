"""The calls that the contract suite cannot bring about: odd answers, Cloud, pages, and credentials from files."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from runnerd.core.errors import ApiAway, ApiDenied
from runnerd.core.prefect import ApiCondition, ApiHealth, StateType, Verdict
from runnerd.core.settings import ApiSettings
from runnerd.prefect_api.answers import ApiRefusal, ClaimOutcome
from runnerd.prefect_api.client import PAGE, PrefectApi
from runnerd.prefect_api.credentials import Credentials, credential_files
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import an_id

T = TypeVar("T")
RUN = str(uuid.uuid4())
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


async def visit(
    use: Callable[[PrefectApi], Awaitable[T]],
    answer: Callable[[httpx.Request], httpx.Response],
    url: str = "http://prefect.test/api",
) -> T:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    api = PrefectApi(url=url, credentials=Credentials, headers={}, timeout_s=30, now=lambda: NOW, client=client)
    try:
        return await use(api)
    finally:
        await api.close()


def says(*bodies: Any, status: int = 200) -> Callable[[httpx.Request], httpx.Response]:
    left = iter(bodies)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/csrf-token"):
            return httpx.Response(422, json={"detail": "CSRF protection is disabled."})
        return httpx.Response(status, json=next(left))

    return answer


def run_json(**changes: Any) -> dict[str, Any]:
    return {"id": RUN, "flow_id": an_id("f"), "state": {"type": "SCHEDULED"}, **changes}


# --- the server ---------------------------------------------------------------------------------------------------


async def test_the_version_is_asked_again_after_a_trouble() -> None:
    async def use(api: PrefectApi) -> None:
        assert (await api.server()).version == (await api.server()).version == "2.20.25"
        with pytest.raises(ApiAway):
            await api.read_run(RUN)
        assert ((await api.server()).version, (await api.server()).major) == ("3.8.8", 3)

    answers = iter([(200, "2.20.25"), (503, None), (200, "3.8.8")])

    def answer(request: httpx.Request) -> httpx.Response:
        status, body = next(answers)
        return httpx.Response(status, json=body)

    await visit(use, answer)


async def test_cloud_is_3_without_being_asked() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"asked {request.url}")

    info = await visit(lambda api: api.server(), answer, "https://api.prefect.cloud/api/accounts/a/workspaces/w")
    assert (info.major, info.supported) == (3, True)


@pytest.mark.parametrize("body", [None, 3, {"version": "3.8.8"}])
async def test_a_version_that_is_none_is_not_an_answer(body: Any) -> None:
    with pytest.raises(ApiAway, match="the server's version"):
        await visit(lambda api: api.server(), says(body))


# --- odd answers --------------------------------------------------------------------------------------------------


async def test_runs_that_cannot_be_read_are_left_out_and_counted() -> None:
    async def use(api: PrefectApi) -> None:
        for expected in (2, 4):
            runs = await api.scheduled_runs(deployment_ids=["d"], before=NOW, limit=None)
            assert [run.id for run in runs] == [RUN]
            assert api.skipped.count == expected
        assert api.skipped.why == f"{RUN}: unknown state type 'DREAMING'"

    page = [{}, run_json(), run_json(state={"type": "DREAMING"})]
    await visit(use, says(page, page))


@pytest.mark.parametrize("body", [None, [], {}, {"status": 7}, {"status": "ACCEPT", "state": {"type": "DREAMING"}}])
async def test_an_answer_to_a_proposal_that_cannot_be_read_is_asked_for_again(body: Any) -> None:
    with pytest.raises(ApiAway, match="cannot read an answer to a proposed state"):
        await visit(lambda api: api.claim(RUN, transition_id="mine"), says(body))


async def test_a_run_that_cannot_be_read_is_not_taken_for_gone() -> None:
    with pytest.raises(ApiAway, match="unknown state type"):
        await visit(lambda api: api.read_run(RUN), says(run_json(state={"type": "DREAMING"})))


async def test_the_states_transition_id_decides_and_not_the_status_word() -> None:
    def told(status: str, kind: str, transition_id: str | None) -> dict[str, Any]:
        state = {"type": kind, "state_details": {"transition_id": transition_id}}
        return {"status": status, "state": state, "details": {"reason": "because"}}

    async def claims(api: PrefectApi) -> list[ClaimOutcome]:
        return [(await api.claim(RUN, transition_id="mine")).outcome for _ in range(5)]

    bodies = [
        told("ACCEPT", "PENDING", "mine"),
        told("REJECT", "PENDING", "mine"),
        told("ABORT", "PENDING", "theirs"),
        told("ACCEPT", "PENDING", None),  # a server that drops the id: nobody could tell whose it is
        told("REJECT", "SCHEDULED", "mine"),  # AwaitingConcurrencySlot must not start, whatever it carries
    ]
    assert await visit(claims, says(*bodies)) == ["won", "won", "lost", "lost", "lost"]


async def test_a_claim_without_a_state_is_lost() -> None:
    claim = await visit(
        lambda api: api.claim(RUN, transition_id="mine"),
        says({"status": "ABORT", "state": None, "details": {"reason": "no"}}),
    )
    assert (claim.outcome, claim.state, claim.reason) == (ClaimOutcome.LOST, None, "no")


async def test_wait_is_told_in_seconds() -> None:
    wait = {"status": "WAIT", "state": None, "details": {"delay_seconds": 30, "reason": "early"}}
    verdict = Verdict(type=StateType.RUNNING)
    answer = await visit(lambda api: api.propose(RUN, verdict, transition_id="mine"), says(wait))
    assert (answer.accepted, answer.wait_s, answer.reason) == (False, 30.0, "early")


async def test_a_refusal_without_words_names_its_status() -> None:
    refused = await visit(lambda api: api.create_run(RUN, parameters={}), says({}, status=409))
    assert refused == ApiRefusal(reason="HTTP 409")


# --- pages --------------------------------------------------------------------------------------------------------


async def test_long_lists_are_asked_for_in_pages() -> None:
    sizes: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/csrf-token"):
            return httpx.Response(404, json={"detail": "Not Found"})
        ids = json.loads(request.content)["flow_runs"]["id"]["any_"]
        sizes.append(len(ids))
        return httpx.Response(200, json=[run_json(id=each) for each in ids])

    ids = [str(uuid.uuid4()) for _ in range(2 * PAGE + 1)]
    runs = await visit(lambda api: api.runs_of(ids, states=[StateType.CANCELLING]), answer)
    assert [run.id for run in runs] == ids and sizes == [PAGE, PAGE, 1]


async def test_nothing_to_ask_is_not_asked() -> None:
    async def use(api: PrefectApi) -> None:
        assert await api.runs_of([], states=[StateType.CANCELLING]) == []
        assert await api.read_deployments([]) == []
        assert await api.scheduled_runs(deployment_ids=[], before=NOW, limit=None) == []
        assert await api.scheduled_runs(deployment_ids=["d"], before=NOW, limit=0) == []

    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError(f"asked {request.url}")

    await visit(use, answer)


# --- credentials --------------------------------------------------------------------------------------------------


def test_credentials_are_read_anew_each_time(tmp_path: Path) -> None:
    key, auth = tmp_path / "key", tmp_path / "auth"
    read = credential_files(ApiSettings(url="x", key_file=str(key), auth_string_file=str(auth)))
    key.write_text("  pnu_one\n")
    auth.write_text("user:pässword".encode("ascii", "ignore").decode() + "\n")
    assert read() == Credentials(key="pnu_one", auth_string="user:pssword")
    key.write_text("pnu_two")
    assert read().key == "pnu_two"
    assert credential_files(ApiSettings(url="x"))() == Credentials()


def test_credentials_are_not_shown() -> None:
    shown = f"{Credentials(key='pnu_one', auth_string='user:secret')!r}"
    assert "pnu_one" not in shown and "secret" not in shown


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"two\nlines", b"tab\there", "schlüssel".encode(), b"\xff\xfe", b"a\x00"]
)
def test_a_file_that_holds_no_key_is_a_denial_that_does_not_quote_it(tmp_path: Path, content: bytes) -> None:
    key = tmp_path / "key"
    key.write_bytes(content)
    with pytest.raises(ApiDenied) as caught:
        credential_files(ApiSettings(url="x", key_file=str(key)))()
    assert str(key) in str(caught.value)
    assert "schl" not in str(caught.value) and "lines" not in str(caught.value)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ApiDenied, match=r"cannot read the API key file .*/nokey: No such file or directory"):
        credential_files(ApiSettings(url="x", key_file=str(tmp_path / "nokey")))()


async def test_a_key_that_is_rotated_in_its_file_heals(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("old")
    fake = FakePrefect(major=3, key="new")
    api = PrefectApi(
        url="http://fake.test/api",
        credentials=credential_files(ApiSettings(url="x", key_file=str(key))),
        headers={},
        timeout_s=30,
        now=lambda: NOW,
        client=httpx.AsyncClient(transport=fake.transport()),
    )
    with pytest.raises(ApiDenied):
        await api.server()
    assert api.health.condition is ApiCondition.DEGRADED
    key.write_text("new")
    assert (await api.server()).major == 3
    assert api.health.condition is ApiCondition.OK
    await api.close()


@pytest.mark.parametrize("answer", [{}, [], {"login": "please"}, "hello", 5, None, [5], {"status": []}])
async def test_answers_that_are_json_and_not_prefect_s(answer: Any) -> None:
    """A portal that says 200 to everything: the health says what is going on, and says so until it is over."""
    fake = FakePrefect(major=3)
    told: list[ApiHealth] = []
    api = PrefectApi(
        url="http://fake.test/api",
        credentials=Credentials,
        headers={},
        timeout_s=30,
        now=lambda: NOW,
        client=httpx.AsyncClient(transport=fake.transport()),
        on_health=told.append,
    )
    await api.server()
    fake.trouble("/flow_runs", status=200, body=answer, times=10**9)
    for _ in range(3):
        with pytest.raises(ApiAway, match="as Prefect sent it"):
            await api.propose(str(uuid.uuid4()), Verdict(type=StateType.PENDING), transition_id=str(uuid.uuid4()))
    assert [health.condition for health in told[:2]] == [ApiCondition.OK, ApiCondition.DEGRADED]
    assert "is api.url right?" in api.health.detail
    await api.close()


# --- over a real socket, and what importing costs --------------------------------------------------------------------


@pytest.mark.real_io
@pytest.mark.parametrize("major", [2, 3])
async def test_the_fake_can_be_served_on_a_port(major: int) -> None:
    fake = FakePrefect(major=major)
    with fake.serve() as url:
        api = PrefectApi(url=url, credentials=Credentials, headers={}, timeout_s=30, now=lambda: NOW)
        try:
            assert (await api.server()).major == major
            flow_id = await api.ensure_flow("f")
            assert await api.read_flow(flow_id) == "f"
            fake.trouble("GET /flows", times=1)
            with pytest.raises(ApiAway):
                await api.read_flow(flow_id)
            fake.trouble("GET /flows", status=503, headers={"Retry-After": "3"})
            with pytest.raises(ApiAway) as caught:
                await api.read_flow(flow_id)
            assert caught.value.retry_after_s == 3.0
            assert await api.read_flow(flow_id) == "f"
            fake.down = True
            with pytest.raises(ApiAway):
                await api.server()
                await api.read_flow(flow_id)
        finally:
            await api.close()


async def test_a_lost_answer_is_a_claim_that_can_be_repeated() -> None:
    fake = FakePrefect(major=3)
    client = httpx.AsyncClient(transport=fake.transport())
    api = PrefectApi(
        url="http://fake.test/api",
        credentials=Credentials,
        headers={},
        timeout_s=30,
        now=lambda: NOW,
        client=client,
    )
    fake.deployments[an_id("d")] = {"id": an_id("d"), "flow_id": an_id("f"), "name": "n"}
    run_id = fake.add_run(an_id("d"))
    fake.trouble("/set_state", after=True)
    with pytest.raises(ApiAway):
        await api.claim(run_id, transition_id="mine")
    assert fake.state_of(run_id) == "PENDING"
    assert (await api.claim(run_id, transition_id="mine")).outcome is ClaimOutcome.WON
    assert fake.history[run_id] == ["Scheduled", "Pending"]
    await api.close()


def test_importing_the_client_leaves_out_what_a_daemon_does_not_need() -> None:
    """Each of these costs memory for ever; the command line of httpx alone brings click, rich and pygments."""
    unwanted = ["click", "rich", "pygments", "h2", "unittest", "importlib.metadata", "trio"]
    code = f"import sys, runnerd.prefect_api.client; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    light = "import sys, runnerd.prefect_api.dialect, runnerd.prefect_api.answers; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", light], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
