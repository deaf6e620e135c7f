"""elsewhere.py: runs that this host does not have, read from the API by their full ids."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from runnerd.control.backend.elsewhere import READ_S
from runnerd.control.contract import Refused, RunElsewhere
from runnerd.core.errors import JournalError
from runnerd.core.machine import RunRecord
from runnerd.journal.journal import Journal
from tests.kits.engine import running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.host import PEER, Daemon, daemon
from tests.kits.nouns import NOON, Json, LogLines, log_to
from tests.kits.pools import pool_settings, pooled, serve, with_pools


async def read(one: Daemon, run_id: str) -> RunElsewhere:
    assert one.host.runs.find(run_id) == [], "this is about runs that are unknown here"
    found = await one.host.runs.read_elsewhere([run_id])
    assert isinstance(found, dict)
    return found[run_id]


async def cancel(one: Daemon, run_id: str) -> list[Json] | Refused:
    found = await read(one, run_id)
    assert found.kept is None
    return await one.host.runs.cancel([run_id], now=False, peer=PEER, elsewhere=[found.run])


@pytest.mark.parametrize("major", [2, 3])
async def test_a_run_of_a_paused_pool(tmp_path: Path, major: int) -> None:
    prefect = FakePrefect(major=major)
    prefect.pools.create_pool("etl")
    async with daemon(tmp_path, prefect=prefect) as one:
        run_id = one.engine.add_run(pooled(one.engine), name="old-otter")
        serve(one.engine.pools, one.engine.prefect, pool_settings())
        one.engine.prefect.pools.update_pool("etl", {"is_paused": True})
        await one.engine.poller.poll_once()
        its = (await read(one, run_id)).document
        assert (its["id"], its["name"], its["here"], its["phase"]) == (run_id, "old-otter", False, None)
        assert (its["pool"], its["queue"], its["api_state"]) == ("etl", "default", "SCHEDULED")
        assert (its["flow"], its["waiting"]) == ("pooled", "work pool etl is paused")
        assert its["deployment"] is not None
        (document,) = await cancel(one, run_id)
        assert (document["phase"], document["exit"]["words"]) == ("done", "cancelled before it started")
        assert one.engine.prefect.state_of(run_id) == "CANCELLED"
        assert one.host.runs.find(run_id), "from then on it is known here"
        assert one.spawner.started == []


async def test_a_run_that_the_next_poll_lists(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        found = await read(one, run_id)
        assert (found.document["waiting"], found.document["pool"]) == ("the next poll lists it", None)
        assert (found.document["flow"], found.document["deployment"]) == ("etl", "nightly")
        (document,) = await cancel(one, run_id)
        assert document["api_state"] == "CANCELLED"


async def test_a_run_of_later(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy(), in_s=86_400.0)
        await one.engine.poller.poll_once()
        assert str((await read(one, run_id)).document["waiting"]).startswith("it is due at 20")


NOT_SERVED = "neither its deployment nor its work pool is served here"


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        ("other", "work pool other is not served here"),
        ("held", "work pool held is paused; work pool held is not served here"),
        (None, "its deployment is not served here"),
    ],
)
async def test_a_run_for_somebody_else(tmp_path: Path, pool: str | None, why: str) -> None:
    prefect = with_pools(etl={}, other={}, held={})
    async with daemon(tmp_path, prefect=prefect) as one:
        serve(one.engine.pools, prefect, pool_settings())
        prefect.pools.update_pool("held", {"is_paused": True})
        run_id = one.engine.add_run(prefect.pools.add_deployment(pool))
        found = await read(one, run_id)
        assert found.document["waiting"] == why
        assert found.kept == f"{NOT_SERVED}; prefect flow-run cancel {run_id} cancels it"


async def test_a_run_for_a_prefect_worker_of_this_host(tmp_path: Path) -> None:
    prefect = with_pools(docker={"type": "docker"})
    async with daemon(tmp_path, prefect=prefect) as one:
        serve(one.engine.pools, prefect, pool_settings("docker"))
        run_id = one.engine.add_run(prefect.pools.add_deployment("docker"))
        found = await read(one, run_id)
        assert found.document["waiting"] == "a Prefect worker of this host takes the runs of work pool docker"
        worker = "a Prefect worker of this host takes the runs of its work pool"
        assert found.kept == f"{worker}; prefect flow-run cancel {run_id} cancels it"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"is_paused": True}, "work queue etl/high is paused"),
        ({"concurrency_limit": 0}, "the concurrency limit of work queue etl/high is 0"),
        ({}, "the next poll lists it"),
        ({"concurrency_limit": 1}, "the next poll lists it, unless a concurrency limit is reached"),
    ],
)
async def test_a_run_in_a_queue(tmp_path: Path, changes: Json, why: str) -> None:
    prefect = with_pools(etl={"queues": ["high"]})
    async with daemon(tmp_path, prefect=prefect) as one:
        prefect.pools.update_queue("etl", "high", changes)
        serve(one.engine.pools, prefect, pool_settings())
        run_id = one.engine.add_run(pooled(one.engine, queue="high"))
        assert (await read(one, run_id)).document["waiting"] == why


async def test_a_run_in_a_queue_that_is_not_served(tmp_path: Path) -> None:
    prefect = with_pools(etl={"queues": ["high", "low"]})
    async with daemon(tmp_path, prefect=prefect) as one:
        serve(one.engine.pools, prefect, pool_settings(queues=("high",)))
        run_id = one.engine.add_run(pooled(one.engine, queue="low"))
        assert (await read(one, run_id)).document["waiting"] == "work queue etl/low is not served here"


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("RUNNING", "the run is Running, and not on this host; prefect flow-run cancel {} cancels it"),
        ("COMPLETED", "the run is Completed already"),
    ],
)
async def test_a_run_that_waits_no_more(tmp_path: Path, state: str, kept: str) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.set_state(run_id, state)
        found = await read(one, run_id)
        assert (found.document["waiting"], found.kept) == (None, kept.format(run_id))


async def test_a_run_that_another_host_takes_meanwhile_is_not_cancelled(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        found = await read(one, run_id)
        one.engine.prefect.set_state(run_id, "RUNNING")
        refused = await one.host.runs.cancel([run_id], now=False, peer=PEER, elsewhere=[found.run])
        assert isinstance(refused, Refused)
        assert (refused.status, one.engine.prefect.state_of(run_id)) == (409, "RUNNING")


async def test_a_run_that_is_claimed_here_meanwhile_is_cancelled_as_any_other(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        found = await read(one, run_id)
        await one.engine.poller.poll_once()
        await one.engine.until(lambda: running(one.engine, run_id))
        (document,) = await one.host.runs.cancel([run_id], now=False, peer=PEER, elsewhere=[found.run])
        assert document["intent"] == "cancel"


async def test_a_run_that_prefect_has_not(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        assert await one.host.runs.read_elsewhere([str(uuid.uuid4())]) == {}


async def test_an_api_that_is_away(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.down = True
        refused = await one.host.runs.read_elsewhere([run_id])
        assert isinstance(refused, Refused)
        words = f"this host does not have run {run_id}, and cannot read from Prefect what it is: "
        assert (refused.status, refused.detail.startswith(words)) == (503, True)


async def test_an_api_that_never_answers_is_given_up_soon(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())

        async def hang(_run_id: str) -> None:
            await asyncio.sleep(3600)

        one.engine.api.pools.placed_run = hang  # type: ignore[method-assign,assignment]
        began = asyncio.get_running_loop().time()
        refused = await one.host.runs.read_elsewhere([run_id, str(uuid.uuid4())])
        assert isinstance(refused, Refused)
        assert asyncio.get_running_loop().time() - began == READ_S
        assert (refused.status, "did not answer within 30s" in refused.detail) == (503, True)


class Full(Journal):
    """A journal without room."""

    def save(self, record: RunRecord, event: str, **more: Json) -> None:
        raise JournalError("cannot write the journal: database or disk is full")


async def test_a_cancel_that_cannot_be_recorded_does_not_put_the_run_on_offer(tmp_path: Path) -> None:
    journal = Full(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    async with daemon(tmp_path, journal=journal) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        with pytest.raises(JournalError, match="cannot cancel: "):
            await cancel(one, run_id)
        assert (one.engine.poller.on_offer.runs, one.engine.prefect.state_of(run_id)) == ({}, "SCHEDULED")


async def test_nothing_that_is_read_is_put_on_offer(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    async with daemon(tmp_path, prefect=prefect) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        await read(one, run_id)
        assert one.engine.poller.on_offer.runs == {}
        assert (prefect.state_of(run_id), one.engine.supervisor.records()) == ("SCHEDULED", [])
