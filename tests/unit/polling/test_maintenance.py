"""The daemon's parts while the API is in maintenance: nothing is lost, and nothing is asked more often than usual."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runnerd.control.backend.documents import api_document
from runnerd.core.prefect import ApiCondition
from runnerd.daemon.summary import Summary
from runnerd.system.systemd import Systemd
from tests.kits.engine import at, polling, polls, started_at
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import copied


class Silent:
    """Where no notification goes."""

    def notify(self, state: str) -> None:
        raise AssertionError(state)


HEADERS = {"Prefect-Maintenance": "true"}


def maintain(prefect: FakePrefect, match: str = "", **more: str) -> None:
    prefect.trouble(match, status=503, headers={**HEADERS, **more}, times=10**9)


async def test_polls_keep_their_pace(tmp_path: Path) -> None:
    async with polling(tmp_path, poll_interval_s=10.0) as (engine, _):
        run_id = engine.add_run(engine.deploy(), in_s=1000.0)
        await asyncio.sleep(30)
        maintain(engine.prefect)
        copied(engine.prefect)
        await asyncio.sleep(600)
        assert 55 <= len(copied(engine.prefect)) <= 66, "neither more often than usual, nor ever more seldom"
        assert engine.api.health.condition is ApiCondition.MAINTENANCE
        engine.prefect.troubles.clear()
        await asyncio.sleep(11)
        assert polls(engine) >= 1
        assert engine.api.health.condition is ApiCondition.OK
        await started_at(engine, run_id)


async def test_the_server_may_say_when_to_ask_again(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, _):
        engine.deploy()
        await asyncio.sleep(30)
        maintain(engine.prefect, **{"Retry-After": "120"})
        copied(engine.prefect)
        await asyncio.sleep(600)
        assert 4 <= len(copied(engine.prefect)) <= 6


async def test_claims_and_reports_wait(tmp_path: Path) -> None:
    async with polling(tmp_path, poll_interval_s=600.0) as (engine, spawner):
        deployment_id = engine.deploy()
        ended, due = engine.add_run(deployment_id), engine.add_run(deployment_id, in_s=300.0)
        engine.wakes.poll_now()
        await started_at(engine, ended)
        engine.prefect.set_state(ended, "RUNNING")
        maintain(engine.prefect)
        spawner.exit(ended, code=3)
        await asyncio.sleep(600)
        assert (engine.phase(ended), engine.phase(due)) == ("reporting", "claiming")
        engine.prefect.troubles.clear()
        began = at(engine)
        await engine.until_done(ended)
        await started_at(engine, due)
        assert at(engine) - began < 20.0
        assert engine.prefect.state_of(ended) == "CRASHED"


async def test_what_is_shown(tmp_path: Path) -> None:
    async with polling(tmp_path) as (engine, _):
        engine.deploy()
        await asyncio.sleep(15)
        maintain(engine.prefect)
        await asyncio.sleep(15)
        document = api_document(engine.api.url, engine.api.health)
        assert (document["state"], document["maintenance"]) == ("degraded", True)
        assert document["detail"].startswith("in maintenance")
        summary = Summary(
            api=engine.api,
            config=engine.config,
            problems=engine.problems,
            supervisor=engine.supervisor,
            feed=engine.feed,
            wakes=engine.wakes,
            systemd=Systemd(environ={}, pid=1, notifier=Silent()),
        )
        assert summary.line().startswith("0 running of 10, API in maintenance")
        engine.prefect.troubles.clear()
        await asyncio.sleep(15)
        assert api_document(engine.api.url, engine.api.health)["maintenance"] is False
