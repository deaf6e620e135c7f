"""waiting.py: which runs wait on this host, and for what."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.control.fields import WAITING_FIELDS
from runnerd.core.errors import ApiAway
from runnerd.core.exit_words import time_text
from runnerd.core.machine import Hook, Phase
from runnerd.core.prefect import ApiCondition, due
from tests.kits.engine_parts import poll_and_look_up
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.host import PEER, Daemon, daemon
from tests.kits.nouns import Json
from tests.kits.pools import kick, pool_settings, pooled, with_pools


def waits(one: Daemon) -> dict[str, str]:
    """What each run that waits waits for, by its id."""
    status = one.host.status()
    assert status["waiting_total"] == len(status["waiting"])
    assert all(set(its) == WAITING_FIELDS for its in status["waiting"])
    return {its["id"]: its["waiting"] for its in status["waiting"]}


def only(one: Daemon) -> Json:
    (its,) = one.host.status()["waiting"]
    return its


@pytest.mark.parametrize(
    ("limits", "more", "why"),
    [
        ({"runs": 1}, {}, "limits.runs 1 is reached"),
        ({"tags": {"gpu": 1}}, {}, "limits.tags gpu 1 is reached"),
        ({}, {"concurrency_limit": 1}, "the deployment's limit 1 is reached"),
    ],
)
async def test_a_limit_of_this_host(tmp_path: Path, limits: Json, more: Json, why: str) -> None:
    async with daemon(tmp_path, **limits) as one:
        deployment = one.engine.deploy(**more)
        first, second = (one.engine.add_run(deployment, tags=["gpu"]) for _ in range(2))
        await one.engine.poller.poll_once()
        assert waits(one) == {second: why}
        assert (only(one)["deployment"], only(one)["phase"], only(one)["parent"]) == ("nightly", None, None)
        await one.engine.until(lambda: one.engine.phase(first) == "running")


async def test_a_limit_of_a_pool(tmp_path: Path) -> None:
    async with daemon(tmp_path, prefect=with_pools(etl={})) as one:
        kick(one.engine, pool_settings(limit=1))
        deployment = pooled(one.engine)
        first, second = (one.engine.add_run(deployment) for _ in range(2))
        await one.engine.poller.poll_once()
        assert waits(one) == {second: "pool etl's limit 1 is reached"}
        assert (only(one)["pool"], only(one)["queue"]) == ("etl", "default")
        assert one.engine.phase(first) is not None


async def test_a_drain(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.host.drain(timeout_s=None, reason="new kernel", peer=PEER)
        run_id = one.engine.add_run(one.engine.deploy())
        await one.engine.poller.poll_once()
        assert waits(one) == {run_id: "this host is draining: new kernel"}


async def test_an_api_that_does_not_answer_the_claim(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        found = await one.engine.api.read_run(run_id)
        assert found is not None
        one.engine.prefect.down = True
        assert one.engine.supervisor.claim_now(found)
        await asyncio.sleep(1)
        assert (only(one)["id"], only(one)["phase"]) == (run_id, "claiming")
        assert only(one)["waiting"].startswith("the API is unreachable: ")
        one.engine.prefect.down = False
        await one.engine.until(lambda: one.engine.phase(run_id) == "running")
        assert waits(one) == {}


async def test_a_run_that_is_claimed_ahead_is_due_when_it_was_to_begin(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy(), in_s=8.0)
        found = await one.engine.api.read_run(run_id)
        assert found is not None
        one.engine.prefect.down = True
        assert one.engine.supervisor.claim_now(found)
        await asyncio.sleep(1)
        assert only(one)["due_at"] == time_text(due(found))
        one.engine.prefect.down = False
        await one.engine.until(lambda: one.engine.phase(run_id) == "running")


async def test_a_disk_without_room(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.spawner.full = True
        run_id = one.engine.add_run(one.engine.deploy())
        await one.engine.poller.poll_once()
        await one.engine.until(lambda: one.engine.lines.events("error"))
        assert (only(one)["id"], only(one)["phase"]) == (run_id, "starting")
        assert "No space left" in only(one)["waiting"]
        one.spawner.full = False
        await one.engine.until(lambda: one.engine.phase(run_id) == "running")
        assert waits(one) == {}


async def put_in(one: Daemon, condition: ApiCondition) -> None:
    """Let a request that has nothing to do with the runs fail."""
    if condition is ApiCondition.UNREACHABLE:
        one.engine.prefect.down = True
    else:
        one.engine.prefect.trouble("POST /flow_runs/count", status=500, times=1)
    with suppress(ApiAway):
        await one.engine.api.pools.waiting.occupied("etl")
    assert one.engine.api.health.condition is condition


async def test_a_claim_is_not_said_to_wait_for_an_api_that_refuses_other_requests(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        found = await one.engine.api.read_run(run_id)
        assert found is not None
        await put_in(one, ApiCondition.DEGRADED)
        one.engine.prefect.trouble(f"POST /flow_runs/{run_id}/set_state", status=500, times=10**9)
        assert one.engine.supervisor.claim_now(found)
        await asyncio.sleep(1)
        assert (one.engine.phase(run_id), waits(one)) == ("claiming", {})
        await asyncio.sleep(10)
        assert waits(one)[run_id].startswith("the API is degraded: ")


async def test_a_start_waits_for_an_api_only_while_that_answers_nothing(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.spawner.down = True
        one.spawner.lose()
        run_id = one.engine.add_run(one.engine.deploy())
        await one.engine.poller.poll_once()
        await one.engine.until(lambda: one.engine.phase(run_id) == "starting")
        await asyncio.sleep(60)
        await put_in(one, ApiCondition.DEGRADED)
        assert (one.engine.phase(run_id), waits(one)) == ("starting", {})
        await put_in(one, ApiCondition.UNREACHABLE)
        assert waits(one)[run_id].startswith("the API is unreachable: ")
        one.engine.prefect.down = one.spawner.down = False


async def test_a_start_that_waits_for_the_disk_does_not_wait_for_the_api(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.spawner.full = True
        run_id = one.engine.add_run(one.engine.deploy())
        await one.engine.poller.poll_once()
        await one.engine.until(lambda: one.engine.lines.events("error"))
        await put_in(one, ApiCondition.UNREACHABLE)
        assert "No space left" in waits(one)[run_id]
        one.engine.prefect.down = one.spawner.full = False


async def test_a_claim_that_was_refused(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.trouble(f"POST /flow_runs/{run_id}/set_state", status=422, times=1)
        await one.engine.poller.poll_once()
        await one.engine.until(lambda: one.engine.phase(run_id) is None)
        await one.engine.poller.poll_once()
        assert only(one)["waiting"].startswith("Prefect refused the claim, which is tried again: ")
        document = one.host.runs.document(run_id)
        assert document is not None
        assert document["waiting"] == only(one)["waiting"]


async def test_an_end_that_cannot_be_reported(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = await one.start()
        live = one.host.runs.document(run_id)
        assert live is not None
        assert live["pid"] is not None
        await put_in(one, ApiCondition.UNREACHABLE)
        one.spawner.exit(run_id)
        await one.engine.until(lambda: one.engine.phase(run_id) == "reporting")
        assert (only(one)["id"], only(one)["phase"]) == (run_id, "reporting")
        assert only(one)["waiting"].startswith("the API is unreachable: ")
        over = one.host.runs.document(run_id)
        assert over is not None
        assert over["waiting"] == only(one)["waiting"]
        one.engine.prefect.down = False
        await one.engine.until_done(run_id)
        assert waits(one) == {}


async def test_a_report_waits_for_a_degraded_api_when_it_is_not_answered_soon(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run = one.engine.supervisor.run(await one.start())
        assert run is not None
        ended = replace(run.record, phase=Phase.REPORTING, ended_at=one.engine.now())
        await put_in(one, ApiCondition.DEGRADED)
        assert one.waits.claimed_reason(ended) is None
        await asyncio.sleep(10)
        assert str(one.waits.claimed_reason(ended)).startswith("the API is degraded: ")
        hooks = replace(ended, hook=Hook.ON_CRASHED)
        assert one.waits.claimed_reason(hooks) is None, "these are processes of this host"


async def test_the_runs_that_wait_are_listed_as_runs(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=1) as one:
        live, other = await one.start(), one.engine.add_run(one.engine.deploy("other"))
        await one.engine.poller.poll_once()
        (its,) = one.host.runs.listing_waiting()
        assert (its["id"], its["phase"], its["waiting"]) == (other, None, "limits.runs 1 is reached")
        await put_in(one, ApiCondition.UNREACHABLE)
        one.spawner.exit(live)
        await one.engine.until(lambda: one.engine.phase(live) == "reporting")
        assert {run["id"] for run in one.host.runs.listing_waiting()} == {
            its["id"] for its in one.host.status()["waiting"]
        }
        assert {run["id"] for run in one.host.runs.listing_waiting()} == {live, other}
        one.engine.prefect.down = False


@pytest.mark.parametrize("major", [2, 3])
async def test_a_parent_that_holds_the_only_slot_is_named(tmp_path: Path, major: int) -> None:
    async with daemon(tmp_path, prefect=FakePrefect(major=major), runs=1) as one:
        parent = await one.start(name="old-otter")
        child = one.engine.prefect.child_of(parent, one.engine.add_run(one.engine.deploy("child")))
        await poll_and_look_up(one.engine.poller)
        told = f"its parent run old-otter ({parent}) holds the only slot, and may wait for this run"
        assert waits(one) == {child: f"limits.runs 1 is reached: {told}"}
        assert only(one)["parent"] == parent


async def test_a_parent_that_holds_one_of_the_slots(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=2) as one:
        parent, _ = await one.start("a"), await one.start("b")
        child = one.engine.prefect.child_of(parent, one.engine.add_run(one.engine.deploy("child")))
        await poll_and_look_up(one.engine.poller)
        assert " holds one of the 2 slots, and may wait " in waits(one)[child]


async def test_a_parent_that_holds_no_slot_of_the_limit_is_not_blamed(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        parent, deployment = await one.start("a"), one.engine.deploy("child", concurrency_limit=1)
        one.engine.add_run(deployment)
        child = one.engine.prefect.child_of(parent, one.engine.add_run(deployment))
        await poll_and_look_up(one.engine.poller)
        assert waits(one) == {child: "the deployment's limit 1 is reached"}
        assert only(one)["parent"] == parent


async def test_of_very_many_the_first_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.host.drain(timeout_s=None, reason="x", peer=PEER)
        deployment = one.engine.deploy()
        ids = [one.engine.add_run(deployment, in_s=-float(number)) for number in range(150)]
        await one.engine.poller.poll_once()
        status = one.host.status()
        assert (len(status["waiting"]), status["waiting_total"]) == (100, 150)
        assert [its["id"] for its in status["waiting"]] == ids[:49:-1]


async def test_a_slot_that_other_hosts_hold_in_prefect(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy(), in_s=15.0)
        one.engine.prefect.runs[run_id]["state"]["name"] = "AwaitingConcurrencySlot"
        await one.engine.poller.poll_once()
        assert waits(one)[run_id].startswith("Prefect has no slot of the deployment's concurrency limit")


async def test_a_command_before_a_run_is_what_the_run_waits_for_and_no_queue(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy(run={"before": (("/bin/check", "x"),)}))
        one.engine.offer(run_id)
        await one.engine.until(lambda: one.spawner.live())
        (document,) = one.host.runs.find(run_id)
        assert (document["phase"], document["waiting"]) == ("starting", "run.before: /bin/check")
        status = one.host.status()
        assert (status["waiting"], status["notices"]) == ([], [])
