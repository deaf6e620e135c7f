"""pools/launching.py: the launch spec of a claimed run of a pool, or why there is none."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from runnerd.core.machine import Hook
from runnerd.core.prefect import StateType
from runnerd.core.process import LaunchSpec
from runnerd.launch.prepared import Launchers
from runnerd.launch.scratch import scratch_directory
from runnerd.launch.spec import hooks_key
from runnerd.pools.job.process_job import process_template
from tests.kits.engine import events, running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import URL, Json
from tests.kits.pools import HOST, finish, launched, launching, offer, pool_settings, pooled, serve, with_pools


def template(**job: Json) -> Json:
    """Prefect's own of type process, with these in its job_configuration; their placeholders are variables."""
    made = process_template(3)
    made["job_configuration"] |= job
    return made


# --- what is started --------------------------------------------------------------------------------------------


async def test_a_run_of_a_pool(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        deployment_id = pooled(engine, flow="sales", name="nightly")
        run_id = engine.add_run(deployment_id, name="fast-owl")
        spec = await launched(engine, spawner, run_id)
        assert (spec.argv, spec.user, spec.output) == (
            (sys.executable, "-m", "prefect.engine"), None, f"/out/{run_id}.1.log",
        )  # fmt: skip
        assert (spec.make_directory, spec.intents) == (True, True)
        wanted = {
            "PREFECT_API_URL": URL,
            "PREFECT_API_KEY": "secret-key",
            "PREFECT__FLOW_RUN_ID": run_id,
            "PREFECT__WORKER_NAME": HOST,
            "PREFECT__DEPLOYMENT_ID": deployment_id,
            "PREFECT__DEPLOYMENT_NAME": "nightly",
            "PREFECT__FLOW_NAME": "sales",
            "RUNNERD_DEPLOYMENT": "nightly",
            "RUNNERD_POOL": "etl",
        }
        assert {name: spec.environment.get(name) for name in wanted} == wanted
        assert not {"OF_THE_DAEMON", "PREFECT__FLOW_ENTRYPOINT"} & set(spec.environment)
        await engine.until(lambda: running(engine, run_id))
        (record,) = engine.supervisor.records()
        assert (record.name, record.deployment, record.flow) == ("fast-owl", "nightly", "sales")
        assert (record.pool, record.queue, record.scratch) == ("etl", "default", spec.working_directory)
        assert spec.working_directory == scratch_directory(record, tmp="/tmp")
        done = await finish(engine, spawner, run_id)
        assert (done.api_state, spawner.records) == (StateType.COMPLETED, {})


async def test_what_a_job_is_made_of(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    env = {"FIXED": "1", "PLACE": "{{ $REGION }}", "TOKEN": "{{ prefect.blocks.secret.token.value }}"}
    env["LEVEL"] = "{{ prefect.variables.level }}"
    prefect.pools.create_pool("etl", base_job_template=template(env=env, name="{{ ctx.flow.name }} {{ name }}"))
    prefect.pools.add_block("secret", "token", {"value": "s3cret"})
    prefect.pools.set_variable("level", "{{ prefect.variables.deeper }}")
    prefect.pools.set_variable("deeper", "debug")
    pool = pool_settings(run={"environment": {"REGION": "north"}})
    async with launching(tmp_path, prefect=prefect, wanted=[pool]) as (engine, spawner):
        variables = {"env": {"A": "deployment", "B": "deployment"}, "labels": {"team": "x"}, "name": "first"}
        deployment_id = pooled(engine, job_variables={**variables, "command": "bash -c 'echo \"a b\"'"})
        run_id = engine.add_run(deployment_id, job_variables={"env": {"B": "run"}, "stream_output": False})
        spec = await launched(engine, spawner, run_id)
        assert spec.argv == ("bash", "-c", 'echo "a b"')
        wanted = {"FIXED": "1", "PLACE": "north", "TOKEN": "s3cret", "A": "deployment", "B": "run"}
        assert {name: spec.environment.get(name) for name in wanted} == wanted
        await engine.until(lambda: running(engine, run_id))
        (record,) = engine.supervisor.records()
        assert (record.process_name, record.labels, record.stream_output) == ("pooled first", {"team": "x"}, False)
        told = [*engine.lines.all(), *events(engine, run_id), record]
        assert "s3cret" not in str(told)


async def test_the_context_knows_the_pool_and_the_queue(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    where = "{{ ctx.flow_run.work_pool_name }}/{{ ctx.flow_run.work_queue_name }}"
    prefect.pools.create_pool("etl", base_job_template=template(name=where))
    prefect.pools.create_queue("etl", "high")
    async with launching(tmp_path, prefect=prefect) as (engine, spawner):
        await launched(engine, spawner, engine.add_run(pooled(engine, queue="high")))
        assert engine.supervisor.records()[0].process_name == "etl/high"


async def test_who_the_run_is_and_what_bounds_it_are_ours_to_say(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    job = {"user": "root", "group": "root", "runtime_max_s": 1, "grace_period_seconds": 7, "image": "x"}
    prefect.pools.create_pool("etl", base_job_template=template(**job))
    pool = pool_settings(run={"user": "nobody", "runtime_max_s": 60.0, "memory_max_bytes": 2**30})
    async with launching(tmp_path, prefect=prefect, wanted=[pool]) as (engine, spawner):
        deployment_id = pooled(engine, job_variables={"user": "root", "env": {"USER": "root"}})
        run_id = engine.add_run(deployment_id, job_variables={"user": "root"})
        spec = await launched(engine, spawner, run_id)
        assert (spec.user, spec.group, spec.runtime_max_s, spec.memory_max_bytes) == ("nobody", None, 60.0, 2**30)
        assert spec.stop_timeout_s == 7
        await engine.until(lambda: running(engine, run_id))
        assert engine.supervisor.records()[0].user == "nobody"


@pytest.mark.parametrize(
    ("changes", "run", "job", "directory"),
    [
        ({}, {}, {}, "/tmp/runnerd-"),
        ({}, {"environment": {"TMPDIR": "/var/tmp"}}, {}, "/var/tmp/runnerd-"),
        ({}, {"environment_file": "ENV"}, {}, "/of/the/file/runnerd-"),
        ({}, {"environment_file": "ENV", "environment": {"TMPDIR": "/var/tmp"}}, {}, "/var/tmp/runnerd-"),
        ({}, {}, {"env": {"TMPDIR": "/of/the/api"}}, "/tmp/runnerd-"),
        ({"scratch": False}, {}, {}, "/srv/flows"),
        ({"scratch": False}, {}, {"working_dir": "below"}, "/srv/flows/below"),
        ({}, {}, {"working_dir": "/opt/code"}, "/opt/code"),
    ],
)
async def test_where_a_run_starts(tmp_path: Path, changes: Json, run: Json, job: Json, directory: str) -> None:
    (tmp_path / "env").write_text("TMPDIR=/of/the/file\n", encoding="utf-8")
    given = {key: str(tmp_path / "env") if value == "ENV" else value for key, value in run.items()}
    prefect = with_pools(etl={"base_job_template": process_template(3)})
    async with launching(tmp_path, prefect=prefect, wanted=[pool_settings(run=given, **changes)]) as (engine, spawner):
        spec = await launched(engine, spawner, engine.add_run(pooled(engine, job_variables=job)))
        made = directory.endswith("-")
        assert spec.make_directory is made
        assert spec.working_directory.startswith(directory) if made else spec.working_directory == directory


# --- agents -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [None, {"env": {"A": "block", "B": "block"}, "command": ["bash", "-c", "true"]}])
async def test_an_agent_s_run(tmp_path: Path, block: Json) -> None:
    prefect = FakePrefect(major=2)
    prefect.pools.create_pool("etl", type="prefect-agent")
    block_id = prefect.pools.add_block("process", None, {"type": "process", **block}) if block else None
    async with launching(tmp_path, prefect=prefect) as (engine, spawner):
        overrides = {"env.B": "override"}
        deployment_id = pooled(engine, infrastructure_document_id=block_id, infra_overrides=overrides)
        spec = await launched(engine, spawner, engine.add_run(deployment_id))
        argv = ("bash", "-c", "true") if block else (sys.executable, "-m", "prefect.engine")
        assert (spec.argv, spec.make_directory) == (argv, True)
        told = [spec.environment.get(name) for name in "AB"]
        assert told == (["block", "override"] if block else [None, None])


async def test_an_infrastructure_block_that_is_gone(tmp_path: Path) -> None:
    prefect = FakePrefect(major=2)
    prefect.pools.create_pool("etl", type="prefect-agent")
    block_id = prefect.pools.add_block("process", None, {})
    async with launching(tmp_path, prefect=prefect) as (engine, _):
        run_id = engine.add_run(pooled(engine, name="d", infrastructure_document_id=block_id))
        del prefect.pools.blocks[block_id]
        await offer(engine, run_id)
        why = "submission failed: deployment pooled/d's infrastructure block does not exist any more"
        assert (await engine.until_done(run_id)).words == why


# --- hooks ------------------------------------------------------------------------------------------------------


async def test_hooks_run_in_the_flow_s_interpreter_whatever_command_the_job_has(tmp_path: Path) -> None:
    async with launching(tmp_path, prefect=FakePrefect(major=3)) as (engine, spawner):
        engine.hooks.add(Hook.ON_CRASHED)
        variables = {"command": "bash -c 'exit 3'", "env": {"A": "1"}}
        run_id = engine.add_run(pooled(engine, job_variables=variables))
        flow = await launched(engine, spawner, run_id)
        assert flow.argv[0] == "bash"
        engine.prefect.set_state(run_id, "RUNNING")
        spawner.exit(run_id, code=3)
        await engine.until(lambda: spawner.runs_of(hooks_key(run_id)))
        (hooks,) = spawner.runs_of(hooks_key(run_id))
        assert (hooks.argv[0], hooks.environment["A"]) == (sys.executable, "1")
        assert hooks.working_directory == f"{flow.working_directory}-hooks"
        assert (hooks.make_directory, hooks.user, hooks.runtime_max_s) == (True, None, 60.0)


@pytest.mark.parametrize("when", ["before", "while it is prepared"])
async def test_hooks_of_a_pool_that_is_not_served_any_more(tmp_path: Path, when: str) -> None:
    prefect = FakePrefect(major=3)
    async with launching(tmp_path, prefect=prefect) as (engine, spawner):
        run_id = engine.add_run(pooled(engine))
        await launched(engine, spawner, run_id)
        (record,) = engine.supervisor.records()
        launchers = engine.launcher
        assert isinstance(launchers, Launchers)
        asking = asyncio.create_task(launchers.prepare_hooks(record))
        if when != "before":
            seen = len(prefect.asked)
            while len(prefect.asked) == seen:
                await asyncio.sleep(0)
        engine.pools.want([])
        assert await asking == "work pool etl is not served by this host any more", "and no environment with keys"


async def test_hooks_of_a_run_whose_job_cannot_be_made_any_more(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    async with launching(tmp_path, prefect=prefect) as (engine, spawner):
        run_id = engine.add_run(pooled(engine))
        await launched(engine, spawner, run_id)
        (record,) = engine.supervisor.records()
        prefect.trouble("GET /deployments/", status=503, times=5)
        assert isinstance(await engine.launcher.prepare_hooks(record), LaunchSpec), "an API that is away is waited for"
        serve(engine.pools, prefect, pool_settings(run={"user": "no-such-user"}))
        assert await engine.launcher.prepare_hooks(record) == "no such user no-such-user"
