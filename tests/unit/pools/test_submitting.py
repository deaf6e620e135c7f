"""Runs of pools that cannot be started, or not yet: what is said of them, and what becomes of the others."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.prefect import StateType
from runnerd.pools.job.process_job import process_template
from tests.kits.engine import Engine, running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, copied
from tests.kits.pools import finish, launched, launching, offer, pool_settings, pooled, serve, with_pools


def template(*, required: tuple[str, ...] = (), job: Json = None, **properties: Json) -> Json:
    made = process_template(3)
    made["job_configuration"] |= job or {}
    made["variables"] |= {"required": list(required)}
    made["variables"]["properties"] |= properties
    return made


async def refused(engine: Engine, run_id: str) -> str:
    """Why it was not submitted, as Prefect has it."""
    record = await engine.until_done(run_id)
    assert (record.api_state, record.exit, record.started_at) == (StateType.CRASHED, None, None)
    told = str(engine.prefect.runs[run_id]["state"]["message"])
    assert (told, engine.prefect.history[run_id]) == (record.words, ["Scheduled", "Pending", "Crashed"])
    assert told.startswith("submission failed: ")
    return told.removeprefix("submission failed: ")


# --- jobs that cannot be made -----------------------------------------------------------------------------------

PORT = {"port": {"type": "integer", "maximum": 10}}
DEPLOYMENT = "deployment pooled/d"


@pytest.mark.parametrize(
    ("base", "variables", "words"),
    [
        (template(required=("port",), **PORT), {}, ['"port" is required', DEPLOYMENT, "work pool etl's template"]),
        (template(**PORT), {"port": "x"}, ['variable "port"', DEPLOYMENT]),
        (template(**PORT), {"port": 11}, ['variable "port"', DEPLOYMENT]),
        (template(job={"name": "{{ nobody }}"}), {}, ["{{ nobody }}", "work pool etl's job_configuration.name"]),
        (template(job={"name": "{{ $NOT_SET }}"}), {}, ['"NOT_SET" is not set', "job_configuration.name"]),
        (template(), {"env": {"A": "{{ prefect.blocks.secret.gone }}"}}, ["secret", "gone", "env.A", DEPLOYMENT]),
        (template(), {"env": {"A": "{{ prefect.variables.gone }}"}}, ["gone", "env.A", DEPLOYMENT]),
        (template(), {"command": "bash -c 'x"}, ['"command" has a quote', DEPLOYMENT]),
        ({"job_configuration": [], "variables": {}}, {}, ["template of work pool etl has no job_configuration"]),
    ],
)
async def test_a_job_that_cannot_be_made(tmp_path: Path, base: Json, variables: Json, words: list[str]) -> None:
    prefect = with_pools(etl={"base_job_template": base}, good={"base_job_template": process_template(3)})
    pools = [pool_settings(), pool_settings("good")]
    async with launching(tmp_path, prefect=prefect, wanted=pools) as (engine, spawner):
        good = engine.add_run(pooled(engine, "good"))
        await launched(engine, spawner, good)
        run_id = engine.add_run(pooled(engine, name="d", job_variables=variables))
        await offer(engine, run_id)
        why = await refused(engine, run_id)
        assert [word for word in words if word not in why] == []
        assert [spec.key for spec in spawner.started] == [good]
        assert engine.supervisor.contained == 0
        await finish(engine, spawner, good)


async def test_a_run_s_own_variable_is_named_as_its_source(tmp_path: Path) -> None:
    prefect = with_pools(etl={"base_job_template": template(**PORT)})
    async with launching(tmp_path, prefect=prefect) as (engine, _):
        run_id = engine.add_run(pooled(engine, job_variables={"port": 3}), job_variables={"port": [1]})
        await offer(engine, run_id)
        why = await refused(engine, run_id)
        assert ('variable "port"' in why, "run" in why) == (True, True)


async def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        spawner.start_error = "no such program no-such-program"
        run_id = engine.add_run(pooled(engine, job_variables={"command": "no-such-program"}))
        await launched(engine, spawner, run_id)
        await engine.until(lambda: engine.supervisor.run(run_id) is None)
        assert await refused(engine, run_id) == "no such program no-such-program"


async def test_a_spawner_that_refuses(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        spawner.refuses = "cannot start runs as root"
        run_id = engine.add_run(pooled(engine))
        await offer(engine, run_id)
        assert await refused(engine, run_id) == "cannot start runs as root"


async def test_a_run_of_our_own_is_not_submitted_by_anybody(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, _):
        run_id = engine.add_run(engine.deploy(run={"user": "no-such-user"}))
        assert engine.offer(run_id)
        assert (await engine.until_done(run_id)).words == "could not start: no such user no-such-user"


# --- what changes meanwhile -------------------------------------------------------------------------------------


def _delete_deployment(engine: Engine) -> None:
    engine.prefect.deployments.clear()


def _delete_flow(engine: Engine) -> None:
    engine.prefect.flows.clear()


def _drop_pool(engine: Engine) -> None:
    engine.pools.want([])


def _delete_pool(engine: Engine) -> None:
    engine.prefect.pools.delete_pool("etl")
    engine.pools.want([pool_settings(limit=3)])  # a reload: it is not known any more


def _become_docker(engine: Engine) -> None:
    engine.prefect.pools.delete_pool("etl")
    engine.prefect.pools.create_pool("etl", type="docker")
    serve(engine.pools, engine.prefect, pool_settings())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_delete_deployment, "its deployment does not exist any more"),
        (_delete_flow, "its deployment does not exist any more"),
        (_drop_pool, "work pool etl is not served by this host any more"),
        (_delete_pool, "work pool etl does not exist any more"),
        (_become_docker, "work pool etl is of type docker by now"),
    ],
)
async def test_what_is_gone_before_it_starts(tmp_path: Path, change: Json, why: str) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        run_id = engine.add_run(pooled(engine))
        engine.prefect.trouble("GET /deployments/", status=503, times=10)
        await offer(engine, run_id)
        await engine.until(lambda: engine.phase(run_id) == "starting")
        change(engine)
        assert await refused(engine, run_id) == why
        assert spawner.started == []


async def test_an_api_that_is_away_is_waited_for(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        ids = [engine.add_run(pooled(engine)) for _ in range(2)]
        engine.prefect.trouble("GET /deployments/", times=10_000)
        for run_id in ids:
            await offer(engine, run_id)
        await asyncio.sleep(3600)
        assert ([engine.phase(run_id) for run_id in ids], spawner.started) == (["starting"] * 2, [])
        engine.supervisor.cancel(ids[:1])
        engine.prefect.troubles.clear()
        record = await engine.until_done(ids[0])
        assert (record.words, record.api_state) == ("cancelled before it started", StateType.CANCELLED)
        await engine.until(lambda: running(engine, ids[1]))
        assert [spec.key for spec in spawner.started] == [ids[1]]


async def test_a_cancel_in_prefect_before_it_starts(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        run_id = engine.add_run(pooled(engine))
        engine.prefect.trouble("GET /deployments/", times=20)
        await offer(engine, run_id)
        await engine.until(lambda: engine.phase(run_id) == "starting")
        engine.prefect.set_state(run_id, "CANCELLING")
        await engine.cancellations.poll_once()
        record = await engine.until_done(run_id)
        assert (record.words, record.api_state) == ("cancelled before it started", StateType.CANCELLED)
        assert spawner.started == []


@pytest.mark.parametrize("trouble", [{"status": 418}, {"status": 200, "body": "<html>"}, {"status": 403}])
async def test_an_answer_that_makes_no_sense_is_asked_for_again(tmp_path: Path, trouble: Json) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, _):
        run_id = engine.add_run(pooled(engine))
        engine.prefect.trouble("GET /deployments/", times=3, **trouble)
        await offer(engine, run_id)
        await engine.until(lambda: running(engine, run_id))


# --- what is asked ----------------------------------------------------------------------------------------------


async def test_what_is_looked_up_is_looked_up_each_time(tmp_path: Path) -> None:
    """A rotated secret reaches the next run, and a run costs a bounded number of requests."""
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        values = {"env": {"A": "{{ prefect.variables.a }}", "B": "{{ prefect.variables.a }}"}}
        deployment_id = pooled(engine, job_variables=values)
        for value in ("first", "second"):
            engine.prefect.pools.set_variable("a", value)
            run_id = engine.add_run(deployment_id)
            await offer(engine, run_id)
            copied(engine.prefect)
            await engine.until(lambda run_id=run_id: running(engine, run_id))
            asked = copied(engine.prefect)
            assert asked.count("GET /variables/name/a") == 1
            assert len(asked) <= 8
            assert [spawner.runs_of(run_id)[0].environment[name] for name in "AB"] == [value] * 2


async def test_blocks_by_their_id(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        block_id = engine.prefect.pools.add_block("labels", None, {"team": "x"})
        reference = {"$ref": {"block_document_id": block_id}}
        run_id = engine.add_run(pooled(engine, job_variables={"labels": reference}))
        await launched(engine, spawner, run_id)
        await engine.until(lambda: running(engine, run_id))
        assert engine.supervisor.records()[0].labels == {"team": "x"}


async def test_a_pool_whose_template_nobody_knows_yet(tmp_path: Path) -> None:
    """The next daemon goes on with a run before it has looked at its pools."""
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        served = engine.pools.get("etl")
        assert served is not None
        assert engine.pools.put(replace(served, pool=None, queues=()), known=served)
        run_id = engine.add_run(pooled(engine, job_variables={"env": {"A": "1"}}))
        assert (await launched(engine, spawner, run_id)).environment["A"] == "1"
