"""retries.py: ended runs are scheduled again with their ids, as `prefect flow-run retry` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.control.backend.retries import MESSAGE
from runnerd.control.contract import Refused
from tests.kits.engine import running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.host import PEER, Daemon, daemon
from tests.kits.nouns import Json
from tests.kits.pools import pool_settings, pooled, serve, with_pools


async def retry(one: Daemon, run_id: str) -> Json | Refused:
    return await one.host.launches.retry(run_id, peer=PEER)


async def ended(one: Daemon, state: str) -> str:
    """A run that has ended on this host in this state; its id."""
    run_id = await one.start()
    one.engine.prefect.set_state(run_id, state)
    one.spawner.exit(run_id)
    await one.engine.until_done(run_id)
    assert one.engine.prefect.state_of(run_id) == state
    return run_id


def refusal(answer: Json | Refused) -> tuple[int, str]:
    assert isinstance(answer, Refused)
    return answer.status, answer.detail


@pytest.mark.parametrize("major", [2, 3])
@pytest.mark.parametrize("state", ["FAILED", "CRASHED", "COMPLETED", "CANCELLED"])
async def test_an_ended_run_is_offered_again_and_runs_here(tmp_path: Path, major: int, state: str) -> None:
    async with daemon(tmp_path, prefect=FakePrefect(major=major)) as one:
        run_id = await ended(one, state)
        document = await retry(one, run_id)
        assert isinstance(document, dict)
        assert (document["id"], document["phase"], document["api_state"]) == (run_id, None, "SCHEDULED")
        assert document["deployment"] == "nightly"
        last = one.engine.prefect.states[run_id][-1]
        assert (last["name"], last["message"]) == ("Scheduled", MESSAGE)
        one.engine.poller._offering.offer_due()
        await one.engine.until(lambda: running(one.engine, run_id))
        assert [spec.attempt for spec in one.spawner.runs_of(run_id)] == [1, 2]


async def test_a_completed_run_whose_result_the_server_keeps_is_forced(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = await ended(one, "COMPLETED")
        one.engine.prefect.keeps_results = True
        assert isinstance(await retry(one, run_id), dict)
        assert one.engine.prefect.state_of(run_id) == "SCHEDULED"


async def test_a_failed_run_is_not_forced(tmp_path: Path) -> None:
    """The server's rules reset what belongs to the attempt that has ended."""
    async with daemon(tmp_path) as one:
        run_id = await ended(one, "FAILED")
        one.engine.prefect.trouble("set_state", status=200, body={"status": "ABORT", "details": {"reason": "no"}})
        assert refusal(await retry(one, run_id)) == (
            409,
            f"cannot retry run {one.engine.prefect.runs[run_id]['name']} ({run_id}): Prefect refuses that: no",
        )
        assert one.engine.prefect.state_of(run_id) == "FAILED"


async def test_a_retry_that_was_reserved_for_the_dead_process_is_anybody_s(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = await ended(one, "CRASHED")
        one.engine.prefect.runs[run_id]["empirical_policy"]["retry_type"] = "in_process"
        assert isinstance(await retry(one, run_id), dict)
        assert one.engine.prefect.runs[run_id]["empirical_policy"]["retry_type"] == "reschedule"


async def test_a_run_of_a_pool_is_its_pool_s_again(tmp_path: Path) -> None:
    async with daemon(tmp_path, prefect=with_pools(etl={})) as one:
        serve(one.engine.pools, one.engine.prefect, pool_settings())
        run_id = one.engine.add_run(pooled(one.engine, name="theirs"))
        one.engine.prefect.set_state(run_id, "FAILED")
        document = await retry(one, run_id)
        assert isinstance(document, dict)
        assert (document["pool"], document["deployment"]) == ("etl", "theirs")
        assert run_id not in one.engine.poller.on_offer.runs, "its queue and its limits decide"
        assert one.engine.wakes.poll.is_set()


@pytest.mark.parametrize("state", ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"])
async def test_a_run_that_has_not_ended(tmp_path: Path, state: str) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.set_state(run_id, state, force=True)
        status, words = refusal(await retry(one, run_id))
        assert status == 409
        assert words.endswith("only one that is Completed, Failed, Crashed or Cancelled is retried")
        assert one.engine.prefect.state_of(run_id) == state


async def test_a_run_whose_end_is_not_reported_yet(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = await one.start()
        one.engine.prefect.set_state(run_id, "FAILED")
        status, words = refusal(await retry(one, run_id))
        assert (status, words.rpartition(": ")[2]) == (409, "it is running")


async def test_runs_that_nobody_here_would_be_offered(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.prefect.pools.add_deployment(None))
        one.engine.prefect.set_state(run_id, "FAILED")
        status, words = refusal(await retry(one, run_id))
        assert (status, "neither its deployment nor its work pool is served here" in words) == (409, True)
        one.engine.prefect.runs[run_id]["deployment_id"] = None
        status, words = refusal(await retry(one, run_id))
        assert (status, "it has no deployment" in words) == (409, True)
        assert f"; runnerctl execute {run_id} --entrypoint FILE.py:FLOW starts it here" in words
        assert one.engine.prefect.state_of(run_id) == "FAILED"
        one.engine.prefect.set_state(run_id, "COMPLETED", force=True)
        assert f"{run_id} --entrypoint FILE.py:FLOW --again starts it" in refusal(await retry(one, run_id))[1]
        one.engine.prefect.set_state(run_id, "CANCELLED", force=True)
        assert "runnerctl execute" not in refusal(await retry(one, run_id))[1], "which is refused"
        assert refusal(await retry(one, "00000000-0000-4000-8000-000000000009"))[0] == 404


async def test_while_the_api_is_away(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = await ended(one, "FAILED")
        one.engine.prefect.down = True
        assert refusal(await retry(one, run_id))[0] == 503
