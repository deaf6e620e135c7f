"""What is said of a run that the kernel killed for want of memory: by us, and to the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.control.backend.documents import run_document
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.run_life import Stage, begin
from tests.kits.spawner import SpawnerUnderTest


@pytest.fixture
def stage(bounded: Path, spawner: SpawnerUnderTest) -> Iterator[Stage]:
    prefect = FakePrefect(major=3)
    with prefect.serve() as url:
        yield Stage(spawner, prefect, url)


async def test_a_run_that_eats_too_much(stage: Stage, bounded: Path) -> None:
    async with stage.engine() as engine:
        run_id = begin(engine, f"eat {bounded}")
        record = await engine.until_done(run_id)
        assert record.words == "killed: out of memory"
        assert run_document(record, now=engine.now())["exit"] == {
            "code": None,
            "signal": 9,
            "oom": True,
            "words": record.words,
        }
        assert stage.prefect.state_of(run_id) == "CRASHED"
        assert stage.prefect.runs[run_id]["state"]["message"] == record.words


async def test_a_cancel_that_the_kernel_was_faster_than(stage: Stage, bounded: Path) -> None:
    async with stage.engine() as engine:
        run_id = begin(engine, f"eat-when-asked {bounded}", stop_timeout_s=600.0)
        await stage.until_running(engine, run_id)
        engine.supervisor.cancel([run_id])
        record = await engine.until_done(run_id)
        assert record.words == "cancelled; killed: out of memory"
        assert stage.prefect.state_of(run_id) == "CANCELLED"
        assert stage.prefect.runs[run_id]["state"]["message"] == record.words
