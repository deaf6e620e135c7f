"""plans.py: what would be started, as whom, by which settings, and what would hold it up; nothing is started."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from runnerd.control.contract import Refused
from runnerd.control.fields import PLAN_FIELDS
from runnerd.core.machine import Phase
from runnerd.pools.job.process_job import process_template
from tests.kits.engine import start
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.host import Daemon, daemon
from tests.kits.launchers import KEY, set_host_run
from tests.kits.nouns import NOON, Json
from tests.kits.pools import pool_settings, pooled, serve, with_pools

HUSH = "hush-hush-hush"


async def plan(one: Daemon, ref: str, *, run: bool = False) -> Json:
    """The plan, after which nothing has been started, claimed or put on offer."""
    offered = dict(one.engine.poller.on_offer.runs)
    started, states = list(one.spawner.started), {key: len(its) for key, its in one.engine.prefect.states.items()}
    found = await (one.host.launches.plan_run(ref) if run else one.host.launches.plan_deployment(ref))
    assert not isinstance(found, Refused), found
    assert (one.spawner.started, one.engine.poller.on_offer.runs) == (started, offered)
    assert {key: len(its) for key, its in one.engine.prefect.states.items()} == states
    assert set(found) == PLAN_FIELDS
    json.dumps(found)
    return found


def sources(plan: Json) -> dict[str, str]:
    return {its["name"]: its["source"] for its in plan["environment"]}


async def test_an_own_deployment(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text(f"FROM_FILE={HUSH}\n")
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, environment={"SHARED": "all"})
        run = {"user": "nobody", "environment_file": str(file), "memory_max_bytes": 2**30, "umask": 0o27}
        environment = {"SHARED": "all", "OWN": HUSH, "LANG": "de_DE.UTF-8"}
        one.engine.deploy(run={**run, "environment": environment}, tags=("gpu",))
        found = await plan(one, "nightly")
        assert (found["kind"], found["name"], found["flow"], found["served"]) == ("deployment", "nightly", "etl", True)
        assert (found["user"], found["group"], found["directory"], found["scratch"]) == (
            "nobody", None, "/srv/flows", False,
        )  # fmt: skip
        assert found["command"][-1] == "prefect.engine"
        assert found["entrypoint"] == "/srv/flows/nightly.py:flow"
        assert (found["limits"]["memory_max"], found["limits"]["umask"]) == (2**30, "0027")
        assert found["limits"]["concurrency"] == [{"name": "limits.runs", "used": 0, "max": 10}]
        assert (found["problem"], found["held_by"], found["due_at"], found["next"]) == (None, [], None, [])
        assert HUSH not in str(found) and KEY not in str(found)
        assert "/etc/runnerd/conf.d/10.yaml" in sources(found)["OWN"]
        wanted = {
            "HOME": "account nobody",
            "PREFECT_API_KEY": "runnerd's access to the API",
            "FROM_FILE": f"environment_file {file}",
            "SHARED": "run.environment of the host",
            "LANG": sources(found)["OWN"],
            "PREFECT__FLOW_ENTRYPOINT": "runnerd",
            "PATH": "runnerd",
        }
        assert {name: sources(found)[name] for name in wanted} == wanted


async def test_a_plan_is_what_is_started(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        deployment_id = one.engine.deploy(run={"user": "nobody", "environment": {"A": "1"}})
        found = await plan(one, "nightly")
        await start(one.engine, deployment_id)
        (spec,) = one.spawner.started
        assert (found["command"], found["directory"]) == (list(spec.argv), spec.working_directory)
        assert set(sources(found)) == set(spec.environment)


async def test_what_holds_up_a_run_of_a_deployment(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True, runs=2, tags={"gpu": 1}) as one:
        deployment_id = one.engine.deploy(run={"limit": 1}, tags=("gpu",))
        await start(one.engine, deployment_id, tags=["gpu"])
        found = await plan(one, "nightly")
        assert found["held_by"] == ["the deployment's limit 1 is reached"]
        assert found["limits"]["concurrency"] == [
            {"name": "limits.runs", "used": 1, "max": 2},
            {"name": "deployment", "used": 1, "max": 1},
            {"name": "limits.tags gpu", "used": 1, "max": 1},
        ]
        one.engine.drain.begin(reason="new kernel", timeout_s=None)
        assert any("new kernel" in why or "drain" in why for why in (await plan(one, "nightly"))["held_by"])
        await one.host.deployments.set_paused(deployment_id, True, peer=None)  # type: ignore[arg-type]
        assert any("the deployment is paused" in why for why in (await plan(one, "nightly"))["held_by"])


async def test_next_starts_and_an_outage(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        deployment_id = one.engine.deploy()
        for hours in (3, 1, 2):
            one.engine.add_run(deployment_id, in_s=hours * 3600.0)
        one.engine.add_run(one.engine.deploy("other"), in_s=60.0)
        found = await plan(one, "nightly")
        assert len(found["next"]) == 3
        assert found["next"] == sorted(found["next"])
        one.engine.registry.note_next_run(deployment_id, NOON + timedelta(hours=1))
        one.engine.prefect.down = True
        away = await plan(one, "nightly")
        assert away["next"] == ["2025-01-01T13:00:00.000Z"]
        assert away["command"], "what this host knows needs no API"
        assert any(why.startswith("the API is unreachable") for why in away["held_by"])


async def test_a_start_that_is_not_possible(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        one.engine.deploy(run={"user": "no-such-user"})
        found = await plan(one, "nightly")
        assert found["problem"] == "no such user no-such-user"
        assert (found["command"], found["environment"], found["limits"].keys()) == (None, None, {"concurrency"})


# --- pools --------------------------------------------------------------------------------------------------------


async def test_a_deployment_of_a_pool_that_only_prefect_has(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    template = process_template(3)
    template["job_configuration"] |= {
        "command": "run --token {{ prefect.blocks.secret.token.value }} --key {{ $MY_TOKEN }}",
        "env": {"OF_JOB": "x", "REMOVED": None},
    }
    prefect.pools.create_pool("etl", base_job_template=template)
    prefect.pools.add_block("secret", "token", {"value": HUSH})
    async with daemon(tmp_path, prefect=prefect, launches=True) as one:
        run = {"user": "nobody", "environment": {"MY_TOKEN": "also-hush", "REMOVED": "1"}}
        serve(one.engine.pools, prefect, pool_settings(run=run, limit=2))
        deployment_id = pooled(one.engine, flow="sales", name="daily")
        for ref in ("sales/daily", deployment_id):
            found = await plan(one, ref)
            assert (found["pool"], found["queue"], found["served"], found["user"]) == ("etl", "default", True, "nobody")
            assert found["command"] == ["run", "--token", "***", "--key", "***"]
            assert (found["scratch"], found["directory"]) == (True, "/tmp")
            assert sources(found)["OF_JOB"] == "job of work pool etl"
            assert "REMOVED" not in sources(found)
            assert HUSH not in str(found) and "also-hush" not in str(found)
            assert {"name": "pool etl", "used": 0, "max": 2} in found["limits"]["concurrency"]
            assert found["held_by"] == []
        await one.engine.api.pools.update_pool("etl", {"is_paused": True})
        assert (await plan(one, "sales/daily"))["held_by"] == ["work pool etl is paused"]


async def test_what_this_host_does_not_serve_is_planned_as_execute_starts_it(tmp_path: Path) -> None:
    prefect = with_pools(other={})
    async with daemon(tmp_path, prefect=prefect, launches=True) as one:
        set_host_run(one.engine, user="nobody")
        prefect.pools.add_deployment("other", flow="sales", name="daily")
        found = await plan(one, "sales/daily")
        assert (found["served"], found["user"], found["scratch"]) == (False, "nobody", True)
        assert found["held_by"] == ["work pool other is not served here"]
        refused = await one.host.launches.plan_deployment("sales/none")
        assert isinstance(refused, Refused) and refused.status == 404


# --- runs ---------------------------------------------------------------------------------------------------------


async def test_a_run_that_is_due_later(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        run_id = one.engine.add_run(one.engine.deploy(), in_s=10 * 86400.0, name="fast-owl")
        found = await plan(one, run_id, run=True)
        assert (found["kind"], found["id"], found["name"]) == ("run", run_id, "fast-owl")
        assert found["due_at"] is not None
        assert found["held_by"][0].startswith("it is due at ")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("FAILED", "the run is Failed already; runnerctl retry schedules it again"),
        ("RUNNING", "the run is Running, and not on this host"),
    ],
)
async def test_a_run_in_another_state(tmp_path: Path, state: str, words: str) -> None:
    async with daemon(tmp_path, launches=True) as one:
        run_id = one.engine.add_run(one.engine.deploy())
        one.engine.prefect.set_state(run_id, state)
        assert (await plan(one, run_id, run=True))["held_by"] == [words]


async def test_a_run_that_is_here(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        run_id = await one.start()
        assert one.engine.phase(run_id) == Phase.RUNNING
        assert (await plan(one, run_id, run=True))["held_by"] == ["the run is on this host already: it is running"]


async def test_a_run_without_a_deployment(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        run_id = one.engine.add_run(one.engine.prefect.pools.add_deployment(None))
        one.engine.prefect.runs[run_id]["deployment_id"] = None
        found = await plan(one, run_id, run=True)
        assert "--entrypoint" in found["problem"]
        assert found["held_by"] == ["it has no deployment and no work pool"]
        refused = await one.host.launches.plan_run("00000000-0000-4000-8000-000000000009")
        assert isinstance(refused, Refused) and refused.status == 404
