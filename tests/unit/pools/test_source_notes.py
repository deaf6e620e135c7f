"""source_notes.py: Prefect learns the commit of a run, once, by a label or by a line of its log."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from runnerd.core.machine import Phase
from runnerd.core.record_feed import RecordFeed
from runnerd.pools.outbox import Outbox
from runnerd.pools.source_notes import SourceNotes
from tests.kits.engine import an_ambient
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import NOON, LogLines, a_record, an_id, copied, fake_api

SOURCE = {"kind": "git", "url": "https://git.example/etl.git", "commit": "a" * 40, "directory": "/t"}


@pytest.mark.parametrize("major", [2, 3])
async def test_a_run_is_noted_once(major: int) -> None:
    prefect, feed = FakePrefect(major=major), RecordFeed()
    api = fake_api(prefect)
    ambient = an_ambient(LogLines(), now=lambda: NOON, clock=asyncio.get_running_loop().time)
    outbox = Outbox(ambient=ambient)
    SourceNotes(api=api, feed=feed, outbox=outbox, now=lambda: NOON)
    sending = asyncio.create_task(outbox.run())
    await api.server()
    copied(prefect)
    run_id = an_id("a")
    run = {"source": SOURCE, "started_at": NOON + timedelta(seconds=1)}
    feed.publish(a_record(run_id, phase=Phase.STARTING, source=SOURCE))
    for phase in (Phase.RUNNING, Phase.STOPPING, Phase.DONE):
        feed.publish(a_record(run_id, phase=phase, **run))
    feed.publish(a_record(an_id("b"), phase=Phase.RUNNING, started_at=NOON))
    await asyncio.sleep(5)
    noted = [line for line in copied(prefect) if "labels" in line or "logs" in line]
    assert noted == ["POST /logs/" if major == 2 else f"PATCH /flow_runs/{run_id}/labels"]
    sending.cancel()
    await asyncio.wait([sending])


async def test_an_adopted_run_is_noted_at_its_end() -> None:
    prefect, feed = FakePrefect(major=3), RecordFeed()
    ambient = an_ambient(LogLines(), now=lambda: NOON, clock=asyncio.get_running_loop().time)
    outbox = Outbox(ambient=ambient)
    SourceNotes(api=fake_api(prefect), feed=feed, outbox=outbox, now=lambda: NOON)
    sending = asyncio.create_task(outbox.run())
    feed.publish(a_record(an_id("a"), phase=Phase.DONE, source=SOURCE, started_at=NOON))
    await asyncio.sleep(5)
    assert [line for line in prefect.asked if "labels" in line] == [f"PATCH /flow_runs/{an_id('a')}/labels"]
    sending.cancel()
    await asyncio.wait([sending])
