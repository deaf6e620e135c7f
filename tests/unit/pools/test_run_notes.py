"""run_notes.py: what Prefect is told of a pool's run besides its state, and that nobody waits for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.backoff import Backoff
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.prefect import StateType
from runnerd.core.process import Identity
from runnerd.core.record_feed import RecordFeed
from runnerd.pools.outbox import Outbox
from runnerd.pools.run_notes import RunNotes
from runnerd.pools.table import PoolTable
from tests.kits.engine import an_ambient, running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, LogLines, a_record, copied, fake_api
from tests.kits.pools import HOST, launched, launching, pool_settings, pooled, serve, with_pools

BOOT = Identity(boot_id="b", pid=4711, start_ticks=1)


@dataclass
class Noting:
    prefect: FakePrefect
    feed: RecordFeed
    table: PoolTable
    lines: LogLines

    def run_of(self, pool: str = "etl", **changes: Json) -> RunRecord:
        """A run of that pool that runs, as its record."""
        run_id = self.prefect.pools.add_run(self.prefect.pools.add_deployment(pool))
        return a_record(run_id, **{"pool": pool, "phase": Phase.RUNNING, "identity": BOOT, **changes})

    def place(self, record: RunRecord) -> Json:
        return self.prefect.runs[record.id]["infrastructure_pid"]


@asynccontextmanager
async def noting(prefect: FakePrefect | None = None) -> AsyncIterator[Noting]:
    loop: Any = asyncio.get_running_loop()
    prefect = prefect or with_pools(etl={})
    table, lines, api = PoolTable(), LogLines(), fake_api(prefect, now=loop.utcnow)
    serve(table, prefect, *(pool_settings(name) for name in prefect.pools.pools))
    feed = RecordFeed()
    backoff = lambda: Backoff(first_s=0.5, cap_s=30.0, uniform=random.Random(1).random)  # noqa: E731
    outbox = Outbox(ambient=replace(an_ambient(lines, now=loop.utcnow, clock=loop.time), backoff=backoff))
    RunNotes(api=api.pools, table=table, worker_name=lambda: HOST, feed=feed, outbox=outbox)
    task = asyncio.create_task(outbox.run())
    try:
        yield Noting(prefect, feed, table, lines)
        assert not task.done(), "it has ended, and the daemon with it"
    finally:
        task.cancel()
        await asyncio.wait({task})
        await api.close()


async def test_where_a_run_is_and_whose(tmp_path: Path) -> None:
    async with noting() as one:
        record = one.run_of(labels={"team": "x", "prefect.worker.name": "of the template"})
        one.feed.publish(record)
        await asyncio.sleep(1)
        assert one.place(record) == f"runnerd@{HOST}:4711"
        assert one.prefect.runs[record.id]["labels"] == {
            "team": "x",
            "prefect.worker.name": HOST,
            "prefect.worker.type": "process",
            "prefect.work-pool.name": "etl",
            "prefect.work-pool.id": one.prefect.pools.read_pool("etl").id,
        }


async def test_a_pool_that_is_not_served_any_more(tmp_path: Path) -> None:
    async with noting() as one:
        record = one.run_of(identity=None)
        one.table.want([])
        one.feed.publish(record)
        await asyncio.sleep(1)
        assert one.place(record) == f"runnerd@{HOST}:0"
        labels = one.prefect.runs[record.id]["labels"]
        assert labels == {"prefect.worker.name": HOST, "prefect.work-pool.name": "etl"}


async def test_agents_and_labels_on_prefect_2(tmp_path: Path) -> None:
    prefect = FakePrefect(major=2)
    prefect.pools.create_pool("etl", type="prefect-agent")
    async with noting(prefect) as one:
        record = one.run_of()
        one.feed.publish(record)
        await asyncio.sleep(1)
        assert one.place(record) == f"runnerd@{HOST}:4711"
        assert not [asked for asked in prefect.asked if asked.endswith("/labels")]


async def test_of_what_nothing_is_told() -> None:
    async with noting() as one:
        record = one.run_of()
        for phase in Phase:
            one.feed.publish(replace(record, pool=None, phase=phase, api_state=StateType.SCHEDULED))
            if phase not in (Phase.RUNNING, Phase.DONE):
                one.feed.publish(replace(record, phase=phase))
        for state in (None, StateType.COMPLETED, StateType.CRASHED, StateType.PAUSED):
            one.feed.publish(replace(record, phase=Phase.DONE, api_state=state))
        await asyncio.sleep(60)
        assert copied(one.prefect) == []


async def test_the_place_of_a_run_that_is_to_be_started_again_is_cleared() -> None:
    async with noting() as one:
        record = one.run_of()
        one.feed.publish(record)
        one.feed.publish(replace(record, phase=Phase.DONE, api_state=StateType.SCHEDULED))
        await asyncio.sleep(1)
        assert one.place(record) is None
        patched = [asked for asked in one.prefect.asked if asked == f"PATCH /flow_runs/{record.id}"]
        assert len(patched) == 2, "it is cleared last"


@pytest.mark.parametrize("trouble", [{}, {"status": 503}, {"status": 401}])
async def test_an_api_that_is_away_hears_it_later_and_in_order(trouble: dict[str, Json]) -> None:
    async with noting() as one:
        one.prefect.trouble("PATCH", times=10_000, **trouble)
        records = [one.run_of() for _ in range(3)]
        for record in records:
            one.feed.publish(record)
        one.feed.publish(replace(records[0], phase=Phase.DONE, api_state=StateType.SCHEDULED))
        await asyncio.sleep(3600)
        assert len(copied(one.prefect)) < 1000
        one.prefect.troubles.clear()
        await asyncio.sleep(60)
        place = f"runnerd@{HOST}:4711"
        assert [one.place(record) for record in records] == [None, place, place]
        patched = [asked.split("/")[2] for asked in one.prefect.asked if asked.startswith("PATCH")]
        assert list(dict.fromkeys(patched)) == [record.id for record in records]


async def test_what_is_refused_is_let_go_of() -> None:
    async with noting() as one:
        first, second = one.run_of(), one.run_of()
        one.prefect.trouble(f"PATCH /flow_runs/{first.id}", status=422, times=10_000)
        one.feed.publish(first)
        one.feed.publish(second)
        await asyncio.sleep(1)
        assert (one.place(first), one.place(second)) == (None, f"runnerd@{HOST}:4711")
        assert one.lines.events("warning", "error") == []


@pytest.mark.parametrize("status", [500, 403])
async def test_what_is_refused_for_ever_holds_up_no_other(status: int) -> None:
    async with noting() as one:
        first, second, third = one.run_of(), one.run_of(), one.run_of()
        for run in (first, second):
            one.prefect.trouble(f"PATCH /flow_runs/{run.id}", status=status, times=1_000_000)
        one.feed.publish(first)
        one.feed.publish(third)
        await asyncio.sleep(60)
        assert (one.place(first), one.place(third)) == (None, f"runnerd@{HOST}:4711")
        asked = copied(one.prefect)
        assert asked.count(f"PATCH /flow_runs/{first.id}") == 5
        one.feed.publish(second)
        await asyncio.sleep(60)
        assert len(one.lines.events("warning")) == 2, "once for each time that it begins"


@pytest.mark.parametrize("status", [500, 403])
async def test_an_api_that_refuses_all_is_asked_once_each_and_named_once(status: int) -> None:
    async with noting() as one:
        one.prefect.trouble("PATCH /flow_runs", status=status, times=1_000_000)
        records = [one.run_of() for _ in range(100)]
        for record in records:
            one.feed.publish(record)
        await asyncio.sleep(60)
        assert sum(asked.startswith("PATCH") for asked in copied(one.prefect)) == 5 + 99
        (line,) = one.lines.events("warning")
        assert line.startswith(f"cannot send where run {records[0].id} runs; dropping it")
        one.prefect.troubles.clear()
        one.feed.publish(records[0])
        await asyncio.sleep(1)
        assert one.place(records[0]) == f"runnerd@{HOST}:4711"


async def test_what_is_to_come_later_for_ever_holds_up_no_other() -> None:
    async with noting() as one:
        first, second, third = one.run_of(), one.run_of(), one.run_of()
        for run in (first, second):
            one.prefect.trouble(f"PATCH /flow_runs/{run.id}", status=503, times=1_000_000)
        for run in (first, second, third):
            one.feed.publish(run)
        await asyncio.sleep(600)
        assert one.place(third) == f"runnerd@{HOST}:4711"
        fourth = one.run_of()
        one.feed.publish(fourth)
        await asyncio.sleep(600)
        assert one.place(fourth) == f"runnerd@{HOST}:4711"
        copied(one.prefect)
        await asyncio.sleep(3600)
        assert copied(one.prefect) == [], "they are dropped"
        lines = one.lines.events("warning")
        assert [line.split(";")[0] for line in lines] == [
            f"cannot send where run {run.id} runs" for run in (first, second)
        ]


async def test_what_is_to_come_later_for_hours_is_dropped_though_nothing_waits_behind_it() -> None:
    async with noting() as one:
        run = one.run_of()
        one.prefect.trouble("PATCH", status=503, times=1_000_000)
        one.feed.publish(run)
        await asyncio.sleep(5 * 3600)
        copied(one.prefect)
        await asyncio.sleep(600)
        assert copied(one.prefect), "it is sent when the outage is over"
        await asyncio.sleep(3600)
        copied(one.prefect)
        await asyncio.sleep(3600)
        assert copied(one.prefect) == []
        assert len(one.lines.events("warning")) == 1


async def test_a_run_that_is_gone() -> None:
    async with noting() as one:
        gone, there = one.run_of(), one.run_of()
        del one.prefect.runs[gone.id]
        one.feed.publish(gone)
        one.feed.publish(there)
        await asyncio.sleep(1)
        assert one.place(there) is not None


async def test_of_too_many_the_oldest_are_let_go_of() -> None:
    """Also of the one that is just being told: it must not take another with it."""
    async with noting() as one:
        records = [one.run_of() for _ in range(1001)]
        one.feed.publish(records[0])
        while not one.prefect.asked:
            await asyncio.sleep(0)
        for record in records[1:]:
            one.feed.publish(record)
        await asyncio.sleep(600)
        assert [record for record in records[1:] if one.place(record) is None] == []


async def test_what_is_told_of_a_run_of_the_engine(tmp_path: Path) -> None:
    prefect = with_pools(etl={})
    async with noting(prefect) as one, launching(tmp_path, prefect=prefect) as (engine, spawner):
        engine.feed.subscribe(one.feed.publish)
        run_id = engine.add_run(pooled(engine))
        await launched(engine, spawner, run_id)
        await engine.until(lambda: running(engine, run_id))
        pid = engine.supervisor.records()[0].identity
        assert pid is not None
        await engine.until(lambda: prefect.runs[run_id]["infrastructure_pid"] == f"runnerd@{HOST}:{pid.pid}")
        await asyncio.sleep(60)
        assert [asked.startswith("PATCH") for asked in prefect.asked].count(True) == 2
