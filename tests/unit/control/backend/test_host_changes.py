"""host.py: the changes people may ask a running daemon for."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from runnerd.control.contract import Refused
from runnerd.core.settings import key_of
from runnerd.deployments.registry import Entry
from tests.kits.host import PEER, Daemon, daemon
from tests.kits.nouns import Json, a_deployment

# --- making and executing runs ------------------------------------------------------------------------------------


async def make(one: Daemon, deployment_id: str, **changes: Json) -> Json | Refused:
    given: dict[str, Json] = {"parameters": {"x": 1}, "name": "mine", "tags": ["t"], **changes}
    return await one.host.runs.create(deployment_id, peer=PEER, **given)


async def test_a_run_that_is_made_here_starts_without_a_poll(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.engine.deploy()
        polling = asyncio.create_task(one.engine.poller.run())
        document = await make(one, one.id_of("nightly"))
        assert isinstance(document, dict)
        assert (document["name"], document["deployment"], document["tags"]) == ("mine", "nightly", ["t"])
        # Its time is the server's own clock, which is years ahead of the test's.
        assert document["id"] in one.engine.poller.on_offer.runs
        polling.cancel()
        await asyncio.wait([polling])


async def test_a_busy_server_is_asked_again_and_makes_one_run(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.engine.deploy()
        one.engine.prefect.trouble("create_flow_run", status=503, after=True, times=3)
        assert isinstance(await make(one, one.id_of("nightly")), dict)
        assert len(one.engine.prefect.runs) == 1


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        ({"status": 503, "times": 99}, 503),
        ({"times": 1}, 503),
        ({"status": 401}, 503),
        ({"status": 403}, 503),
        ({"status": 409, "body": {"detail": "Error creating flow run: x is not an integer"}}, 422),
        ({"status": 400}, 422),
    ],
)
async def test_a_run_that_cannot_be_made(tmp_path: Path, trouble: dict[str, Json], status: int) -> None:
    async with daemon(tmp_path) as one:
        one.engine.deploy()
        one.engine.prefect.trouble("create_flow_run", **trouble)
        refused = await make(one, one.id_of("nightly"))
        assert isinstance(refused, Refused)
        assert refused.status == status
        assert refused.detail.startswith("cannot create a run of nightly: ")


async def test_what_is_not_registered_can_neither_run_nor_be_paused(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        one.engine.registry.put(Entry(deployment=a_deployment("new")))
        for answer in (await make(one, ""), await one.host.deployments.set_paused("", True, peer=PEER)):
            assert isinstance(answer, Refused)
            assert answer.status == 409


async def test_executing_a_given_run_here_and_now(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=0) as one:
        run_id = one.engine.add_run(one.engine.deploy(), in_s=86400.0)
        document = await one.host.runs.execute(run_id, again=False, peer=PEER)
        assert isinstance(document, dict)
        assert document["id"] == run_id
        again = await one.host.runs.execute(run_id, again=False, peer=PEER)
        assert isinstance(again, Refused)
        assert (again.status, "live on this host already" in again.detail) == (409, True)
        await one.engine.until(lambda: one.engine.phase(run_id) == "running")


async def test_what_cannot_be_executed_here(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        missing = await one.host.runs.execute(str(uuid.uuid4()), again=False, peer=PEER)
        assert isinstance(missing, Refused)
        assert missing.status == 404
        run_id = one.engine.add_run(one.engine.deploy())
        (entry,) = one.engine.registry.entries()
        one.engine.registry.remove(key_of(entry.deployment))
        one.engine.prefect.runs[run_id]["deployment_id"] = None
        elsewhere = await one.host.runs.execute(run_id, again=False, peer=PEER)
        assert isinstance(elsewhere, Refused)
        assert elsewhere.status == 409


# --- deployments and draining -------------------------------------------------------------------------------------


async def test_pausing_and_resuming(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        deployment_id = one.engine.deploy()
        for paused, state in ((True, "paused"), (False, "ready")):
            one.engine.wakes.poll.clear()
            document = await one.host.deployments.set_paused(deployment_id, paused, peer=PEER)
            assert one.engine.wakes.poll.is_set() is paused, "its scheduled runs, deleted by the server, go off offer"
            assert isinstance(document, dict)
            assert document["state"] == state
            assert one.engine.prefect.deployments[deployment_id]["paused"] is paused
            assert one.host.deployments.listing()[0]["state"] == state


async def test_pausing_what_was_deleted(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        deployment_id = one.engine.deploy()
        one.engine.prefect.deployments.clear()
        refused = await one.host.deployments.set_paused(deployment_id, True, peer=PEER)
        assert isinstance(refused, Refused)
        assert refused.status == 404


async def test_draining_and_undraining(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        status = one.host.drain(timeout_s=None, reason=None, peer=PEER)
        assert (status["draining"], status["drain"]["reason"], status["drain"]["until"]) == (
            True,
            "asked by an operator",
            None,
        )
        polling = asyncio.create_task(one.engine.poller.run())
        await asyncio.sleep(60)
        assert one.engine.supervisor.records() == []
        assert one.host.undrain(peer=PEER)["draining"] is False
        await one.engine.until(lambda: one.engine.phase(run_id) == "running")
        polling.cancel()
        await asyncio.wait([polling])
