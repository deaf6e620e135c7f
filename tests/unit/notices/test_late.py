"""on_late: a scheduled run that has not begun late.after after its time, whatever the reason, once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runnerd.core.notices import NoticeTarget
from runnerd.core.settings import LateSettings
from tests.kits.engine import Engine, polling, started_at
from tests.kits.fakes.fake_prefect import FakePrefect

NOTICES = {"on_late": (NoticeTarget(post="http://host.test/"),)}


def late_runs(engine: Engine) -> list[str]:
    return [one.run_id for one in engine.journal.notices.pending()]


@pytest.mark.parametrize("policy", ["run", "skip", "latest"])
async def test_a_run_that_fell_due_while_nobody_polled(tmp_path: Path, policy: str) -> None:
    late = LateSettings(after_s=600.0, policy=policy)
    async with polling(tmp_path, late=late, notices=NOTICES) as (engine, _):
        deployment_id = engine.deploy()
        run_id = engine.add_run(deployment_id, in_s=-700.0)
        engine.add_run(deployment_id, in_s=-500.0)
        await engine.until(lambda: late_runs(engine))
        assert late_runs(engine) == [run_id]
        (notice,) = engine.journal.notices.pending()
        assert notice.document["words"].startswith("has not begun; it fell due at ")
        assert (notice.document["event"], notice.document["deployment"]) == ("on_late", "nightly")


async def test_a_run_that_waits_for_a_slot_and_once_over_all_polls_and_daemons(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    late = LateSettings(after_s=600.0)
    async with polling(tmp_path, prefect=prefect, runs=1, late=late, notices=NOTICES) as (engine, _):
        deployment_id = engine.deploy()
        first, second = engine.add_run(deployment_id), engine.add_run(deployment_id, in_s=1.0)
        await started_at(engine, first)
        await asyncio.sleep(500)
        assert late_runs(engine) == []
        await asyncio.sleep(500)
        assert late_runs(engine) == [second]
        engine.notices.late._known.clear()  # as the next daemon
        await asyncio.sleep(100)
        assert late_runs(engine) == [second]


async def test_a_run_that_is_late_again_for_another_time(tmp_path: Path) -> None:
    async with polling(tmp_path, notices=NOTICES) as (engine, _):
        run = await engine.api.read_run(engine.add_run(engine.deploy(), in_s=3600.0))
        assert run is not None and run.next_scheduled_start_time is not None
        later = replace(run, next_scheduled_start_time=run.next_scheduled_start_time + timedelta(hours=1))
        for one in (run, run, later, later):
            engine.notices.late.note(one)
        assert late_runs(engine) == [run.id, run.id]


async def test_a_run_that_a_user_requested_is_never_late(tmp_path: Path) -> None:
    async with polling(tmp_path, runs=1, late=LateSettings(after_s=60.0), notices=NOTICES) as (engine, _):
        deployment_id = engine.deploy()
        await started_at(engine, engine.add_run(deployment_id))
        engine.add_run(deployment_id, auto_scheduled=False)
        await asyncio.sleep(500)
        assert late_runs(engine) == []
