"""Odd items of answers: each is left out and named once, and everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerd.prefect_api.body import MAX_ANSWER_BYTES
from runnerd.prefect_api.reading import PAGE
from tests.kits.engine import POLL, Engine, polling, started_at
from tests.kits.fakes.odd_prefect import OddPrefect
from tests.kits.nouns import Json, copied

LEFT_OUT = "left out of an answer of the API, because it is unreadable"
DEEP: Json = []
for _ in range(300):
    DEEP = [DEEP]


def left_out(engine: Engine) -> list[str]:
    return [line["what"] for line in engine.lines.all() if line["event"] == LEFT_OUT]


def altering(where: str, change: Callable[[Json], Json], name: str = "odd") -> OddPrefect:
    """A server that changes each run of this name in the answers to such requests."""
    prefect = OddPrefect(major=3)

    def alter(asked: str, data: Json) -> Json:
        if where not in asked or not isinstance(data, list):
            return data
        return [change(item) if item.get("name") == name else item for item in data]

    prefect.alter = alter
    return prefect


ODD = {
    "no time": (
        lambda run: {**run, "next_scheduled_start_time": "soon"},
        "next_scheduled_start_time is no time: 'soon'",
    ),
    "state": (lambda run: {**run, "state": {**run["state"], "type": "DREAMING"}}, "unknown state type 'DREAMING'"),
    "no state": (lambda run: {**run, "state": None}, "a state is missing"),
    "flow": (lambda run: {**run, "flow_id": "../admin"}, "flow_id is no id: '../admin'"),
    "deep": (lambda run: {**run, "parameters": DEEP}, "it is more than 200 levels deep"),
}


@pytest.mark.parametrize("odd", ODD)
async def test_one_odd_run_is_left_out_and_named_once(tmp_path: Path, odd: str) -> None:
    change, why = ODD[odd]
    async with polling(tmp_path, prefect=altering("get_scheduled_flow_runs", change)) as (engine, _):
        deployment_id = engine.deploy()
        odd_id = engine.add_run(deployment_id, name="odd", in_s=-60.0)
        await started_at(engine, engine.add_run(deployment_id))
        await asyncio.sleep(3600)
        await started_at(engine, engine.add_run(deployment_id))
        assert engine.phase(odd_id) is None
        assert left_out(engine) == [f"flow runs: {odd_id}: {why}"]
        assert engine.lines.events("error") == []


@pytest.mark.parametrize(
    "change",
    [
        lambda run: {**run, "next_scheduled_start_time": "0001-01-01T00:00:00+14:00"},
        lambda run: {**run, "name": "\ud800", "tags": ["\udfff"], "parameters": {"\ud800": ["\ud800"]}},
        lambda run: {**run, "name": "x" * 100_000, "run_count": 10**20, "parameters": {"n": 10**400}},
        lambda run: {**run, "auto_scheduled": 7, "tags": [7, None], "parameters": [], "job_variables": 7},
    ],
)
async def test_a_run_that_is_odd_where_nothing_hangs_on_it_starts(
    tmp_path: Path, change: Callable[[Json], Json]
) -> None:
    async with polling(tmp_path, prefect=altering("get_scheduled_flow_runs", change)) as (engine, _):
        run_id = engine.add_run(engine.deploy(), name="odd")
        await started_at(engine, run_id)
        record = engine.journal.run(run_id)
        assert record is not None and len(record.name) <= 1000
        assert (left_out(engine), engine.lines.events("error")) == ([], [])


async def test_a_run_that_is_to_be_cancelled_at_a_time_that_utc_does_not_have(tmp_path: Path) -> None:
    def change(run: Json) -> Json:
        details = {**run["state"]["state_details"], "scheduled_time": "0001-01-01T00:00:00+14:00"}
        return {**run, "state": {**run["state"], "state_details": details}}

    async with polling(tmp_path, prefect=altering("", change), watching=True) as (engine, _):
        run_id = engine.add_run(engine.deploy(), name="odd")
        await started_at(engine, run_id)
        engine.prefect.set_state(run_id, "RUNNING")
        engine.prefect.set_state(run_id, "CANCELLING")
        assert (await engine.until_done(run_id)).intent == "cancel"
        assert engine.prefect.state_of(run_id) == "CANCELLED"


async def test_one_odd_run_keeps_no_other_from_being_cancelled(tmp_path: Path) -> None:
    prefect = altering("POST /flow_runs/filter", ODD["state"][0])
    async with polling(tmp_path, prefect=prefect, watching=True) as (engine, spawner):
        deployment_id = engine.deploy()
        odd, other = (engine.add_run(deployment_id, name=name) for name in ("odd", "other"))
        for run_id in (odd, other):
            await started_at(engine, run_id)
            engine.prefect.set_state(run_id, "RUNNING")
            engine.prefect.set_state(run_id, "CANCELLING")
        assert (await engine.until_done(other)).intent == "cancel"
        await asyncio.sleep(600)
        assert spawner.live() == [odd]
        assert len(left_out(engine)) == 1


async def test_a_page_of_odd_runs_hides_no_other_deployment(tmp_path: Path) -> None:
    async with polling(tmp_path, prefect=altering("get_scheduled_flow_runs", ODD["no state"][0])) as (engine, _):
        busy, calm = engine.deploy("busy"), engine.deploy("calm")
        for number in range(PAGE + 50):
            engine.add_run(busy, name="odd", in_s=-600.0 - number)
        await started_at(engine, engine.add_run(calm))
        assert len(left_out(engine)) == 4, "three of them, and how many more"


async def test_runs_that_are_too_long_together_are_listed_in_smaller_pages(tmp_path: Path) -> None:
    def change(run: Json) -> Json:
        return {**run, "parameters": {"text": "x" * (MAX_ANSWER_BYTES // 10)}}

    async with polling(tmp_path, prefect=altering("get_scheduled_flow_runs", change), runs=100) as (engine, _):
        deployment_id = engine.deploy()
        for run_id in [engine.add_run(deployment_id, name="odd") for _ in range(20)]:
            await started_at(engine, run_id)
        assert left_out(engine) == []
        engine.add_run(deployment_id, name="odd", in_s=40.0)
        copied(engine.prefect)
        await asyncio.sleep(600)
        assert copied(engine.prefect).count(POLL) < 80, "the size that fits is remembered"


async def test_one_run_that_is_longer_than_an_answer_hides_no_other_deployment(tmp_path: Path) -> None:
    def change(run: Json) -> Json:
        return {**run, "job_variables": {"text": "x" * MAX_ANSWER_BYTES}}

    async with polling(tmp_path, prefect=altering("get_scheduled_flow_runs", change)) as (engine, _):
        ids = [engine.deploy(f"d{number}") for number in range(7)]
        engine.add_run(ids[3], name="odd", in_s=-60.0)
        for run_id in [engine.add_run(one) for one in ids if one != ids[3]]:
            await started_at(engine, run_id)
        assert left_out(engine) == [f"deployments: {ids[3]}: its next run: it is longer than an answer may be"]
        copied(engine.prefect)
        await asyncio.sleep(500)
        assert copied(engine.prefect).count(POLL) < 60, "nor is it asked for at every poll"
        await asyncio.sleep(600)
        assert len(left_out(engine)) == 1
