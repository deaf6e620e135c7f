"""Backend of runs: cancelling runs that wait, and claims that the API refuses."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from runnerd.control.contract import Refused
from runnerd.core.errors import JournalError
from runnerd.core.machine import Phase, RunRecord
from runnerd.journal.journal import Journal
from runnerd.system.usage import Leader, Measured
from tests.kits.engine import running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.host import PEER, Daemon, daemon
from tests.kits.nouns import NOON, Json, LogLines, log_to, settings


async def cancel(one: Daemon, *run_ids: str) -> list[Json] | Refused:
    return await one.host.runs.cancel(run_ids, now=False, peer=PEER)


async def add_waiting(one: Daemon) -> str:
    """A run that is on offer and waits for limits.runs; its id."""
    first = await one.start()
    waiting = one.engine.add_run(one.engine.deploy("other"))
    await one.engine.poller.poll_once()
    assert running(one.engine, first)
    assert waiting in one.engine.poller.on_offer.waiting
    return waiting


@pytest.mark.parametrize("major", [2, 3])
async def test_a_waiting_run_is_cancelled_at_once_and_never_starts(tmp_path: Path, major: int) -> None:
    async with daemon(tmp_path, prefect=FakePrefect(major=major), runs=1) as one:
        waiting = await add_waiting(one)
        assert [run["id"] for run in one.host.runs.waiting()] == [waiting]
        (document,) = await cancel(one, waiting)
        assert (document["phase"], document["api_state"]) == ("done", "CANCELLED")
        assert document["exit"]["words"] == "cancelled before it started"
        assert one.engine.prefect.history[waiting] == ["Scheduled", "Cancelled"]
        assert (waiting in one.engine.poller.on_offer.runs, one.host.runs.waiting()) == (False, [])
        one.engine.settings = settings(runs=10)
        await one.engine.poller.poll_once()
        assert one.engine.phase(waiting) is None


async def test_while_the_api_is_away_the_run_is_not_started_and_cancelled_later(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=1) as one:
        waiting = await add_waiting(one)
        one.engine.prefect.down = True
        refused = await cancel(one, waiting)
        assert isinstance(refused, Refused)
        assert refused.status == 503
        assert refused.detail == (
            "cannot cancel: the API does not answer; the run is not started here, and cancelled when the API answers"
        )
        assert one.engine.phase(waiting) == "claiming"
        one.engine.prefect.down = False
        record = await one.engine.until_done(waiting)
        assert (record.started_at, one.engine.prefect.state_of(waiting)) == (None, "CANCELLED")


async def test_a_disk_without_room_refuses_no_cancel(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=1) as one:
        waiting = await add_waiting(one)
        one.engine.disk = os.statvfs_result((4096, 4096, 9999, 9, 9, 99, 99, 99, 0, 255))
        await one.engine.room.measure()
        assert one.engine.room.problem() is not None
        (document,) = await cancel(one, waiting)
        assert document["api_state"] == "CANCELLED"


class Unreadable(Journal):
    """A journal that cannot be read once it has a run that is done."""

    def run(self, run_id: str) -> RunRecord | None:
        record = super().run(run_id)
        if record is not None and record.phase is Phase.DONE:
            raise JournalError("cannot read the journal: disk I/O error")
        return record


async def test_a_journal_that_cannot_be_read_does_not_deny_what_is_done(tmp_path: Path) -> None:
    journal = Unreadable(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    async with daemon(tmp_path, journal=journal, runs=1) as one:
        waiting = await add_waiting(one)
        (document,) = await cancel(one, waiting)
        assert (document["phase"], document["api_state"]) == ("done", "CANCELLED")


async def test_what_cannot_be_measured_holds_up_no_order(tmp_path: Path) -> None:
    def fail(_leaders: Sequence[Leader]) -> Measured:
        raise OSError(5, "Input/output error")

    async with daemon(tmp_path, measure=fail) as one:
        await one.start()
        for _ in range(2):
            await one.host.runs.measure()
        assert one.engine.lines.events("error") == ["an item of a loop went wrong; the loop goes on without it"]


async def test_a_measure_that_hangs_holds_up_no_order(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(_leaders: Sequence[Leader]) -> Measured:
        release.wait()
        return {}

    async with daemon(tmp_path, measure=hang) as one:
        await one.start()
        try:
            async with asyncio.timeout(30):
                await one.host.runs.measure()
        finally:
            release.set()
        await one.host.runs.measure()


async def test_a_waiting_run_that_another_host_has_started(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=1) as one:
        waiting = await add_waiting(one)
        one.engine.prefect.set_state(waiting, "RUNNING")
        refused = await cancel(one, waiting)
        assert isinstance(refused, Refused)
        assert (refused.status, "the run is Running already" in refused.detail) == (409, True)
        assert one.engine.prefect.state_of(waiting) == "RUNNING"


async def test_a_cancelled_run_is_not_executed(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.set_state(run_id, "CANCELLED")
        refused = await one.host.runs.execute(run_id, again=False, peer=PEER)
        assert isinstance(refused, Refused)
        cause = "the run is Cancelled; create a new one with runnerctl run, or retry it with runnerctl retry"
        assert (refused.status, refused.detail) == (409, f"cannot execute flow run {run_id}: {cause}")


async def test_a_claim_that_the_api_refuses_is_the_answer_of_execute(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.set_state(run_id, "RUNNING")
        changes: list[Json] = []
        one.host.runs.subscribe(changes.append)
        refused = await one.host.runs.execute(run_id, again=False, peer=PEER)
        assert isinstance(refused, Refused)
        assert (refused.status, "cannot transition to a PENDING state" in refused.detail) == (409, True)
        assert "cannot transition" in changes[-1]["exit"]["words"], "those who follow the run learn the reason"


@pytest.mark.parametrize("major", [2, 3])
async def test_cancel_new_cancels_the_second_run(tmp_path: Path, major: int) -> None:
    async with daemon(tmp_path, prefect=FakePrefect(major=major)) as one:
        limited = one.engine.deploy(concurrency_limit=1, collision_strategy="CANCEL_NEW")
        options = {"concurrency_limit": 1, "concurrency_options": {"collision_strategy": "CANCEL_NEW"}}
        if major == 3:
            one.engine.prefect.deployments[limited] |= options
        first, second = one.engine.add_run(limited), one.engine.add_run(limited)
        await one.engine.poller.poll_once()
        await one.engine.until(lambda: running(one.engine, first))
        await one.engine.until(lambda: one.engine.phase(second) is None)
        assert one.engine.prefect.state_of(second) == "CANCELLED"
        assert any(line.get("run") == second for line in one.engine.lines.all())
        assert not one.engine.poller.on_offer.waiting
