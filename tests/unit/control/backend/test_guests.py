"""executing.py: runs of no deployment or pool of this host, and code that is named with the request."""

from __future__ import annotations

import asyncio
import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.control.contract import Peer, Refused
from runnerd.core.guests import Guest
from runnerd.core.process import LaunchSpec
from tests.kits.engine import running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.host import PEER, Daemon, daemon
from tests.kits.launchers import KEY, set_host_run
from tests.kits.nouns import Json
from tests.kits.pools import pool_settings, serve, with_pools

CODE = "/srv/flows/etl.py:flow"
STRANGER = Peer(uid=4711, gid=4711, pid=7)
ME = pwd.getpwuid(os.geteuid()).pw_name


async def execute(one: Daemon, run_id: str, *, peer: Peer = PEER, **more: Json) -> Json | Refused:
    return await one.host.runs.execute(run_id, again=False, peer=peer, **more)


async def spec_of(one: Daemon, run_id: str, **more: Json) -> LaunchSpec:
    """What was started for the run, once it was."""
    assert not isinstance(await execute(one, run_id, **more), Refused)
    await one.engine.until(lambda: running(one.engine, run_id))
    (spec,) = one.spawner.runs_of(run_id)
    return spec


def unserved(one: Daemon, pool: str | None = None) -> str:
    """A run of a deployment that this host does not have; its id."""
    return one.engine.add_run(one.engine.prefect.pools.add_deployment(pool, name="theirs"))


@pytest.mark.parametrize("pool", [None, "other", "docker"])
async def test_a_run_that_is_not_served_here_is_started_as_the_host_says(tmp_path: Path, pool: str | None) -> None:
    prefect = with_pools(etl={}, other={}, docker={"type": "docker"})
    async with daemon(tmp_path, prefect=prefect, launches=True) as one:
        serve(one.engine.pools, prefect, pool_settings(), pool_settings("docker"))
        set_host_run(one.engine, user="nobody", environment={"A": "1"}, memory_max_bytes=2**30)
        run_id = unserved(one, pool)
        spec = await spec_of(one, run_id)
        assert (spec.user, spec.memory_max_bytes, spec.make_directory) == ("nobody", 2**30, True)
        assert spec.environment["A"] == "1"
        assert spec.environment["PREFECT__FLOW_RUN_ID"] == run_id
        assert "PREFECT__FLOW_ENTRYPOINT" not in spec.environment, "Prefect's engine pulls the code"
        (record,) = one.engine.supervisor.records()
        assert (record.pool, record.guest is not None, record.deployment) == (None, True, "theirs")
        document = one.host.runs.document(run_id)
        assert document is not None
        assert (document["deployment"], document["flow"], document["entrypoint"]) == ("theirs", "pooled", None)


async def test_code_that_is_named_never_runs_as_the_deployment_s_user(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, user="nobody")
        run_id = one.engine.add_run(one.engine.deploy(run={"user": "daemon"}))
        spec = await spec_of(one, run_id, entrypoint=CODE)
        assert spec.user == "nobody"
        assert spec.environment["PREFECT__FLOW_ENTRYPOINT"] == CODE
        assert (spec.working_directory, spec.make_directory) == ("/srv/flows", False)
        document = one.host.runs.document(run_id)
        assert document is not None and document["entrypoint"] == CODE


async def test_a_directory_of_the_host_wins(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, user="nobody", working_directory="/srv/all", scratch=False)
        spec = await spec_of(one, unserved(one), entrypoint=CODE)
        assert (spec.working_directory, spec.make_directory) == ("/srv/all", False)


@pytest.mark.parametrize("major", [2, 3])
async def test_a_run_without_a_deployment_needs_code(tmp_path: Path, major: int) -> None:
    async with daemon(tmp_path, prefect=FakePrefect(major=major), launches=True) as one:
        set_host_run(one.engine, user="nobody")
        run_id = unserved(one)
        one.engine.prefect.runs[run_id]["deployment_id"] = None
        refused = await execute(one, run_id)
        assert isinstance(refused, Refused)
        assert refused.status == 409
        assert refused.detail.endswith(
            "it has no deployment that says where its code is; name the code:"
            f" runnerctl execute {run_id} --entrypoint FILE.py:FLOW"
        )
        spec = await spec_of(one, run_id, entrypoint="jobs.etl:flow")
        assert "PREFECT__DEPLOYMENT_ID" not in spec.environment
        assert spec.make_directory, "of a module nobody knows a directory"
        document = one.host.runs.document(run_id)
        assert document is not None and document["deployment"] is None


@pytest.mark.parametrize(
    "entrypoint",
    ["flows.py:flow", "flow", "/srv/flows.py:", "/srv/../root/x.py:flow", "/srv/flows.py:a b", "a b:flow", "a/b.py:f"],
)
async def test_code_that_cannot_be_meant(tmp_path: Path, entrypoint: str) -> None:
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, user="nobody")
        refused = await execute(one, unserved(one), entrypoint=entrypoint)
        assert isinstance(refused, Refused)
        assert refused.status == 422


# --- who may ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["root", ME, None])
@pytest.mark.parametrize("entrypoint", [CODE, None])
async def test_nobody_else_runs_code_as_root_or_as_the_daemon(
    tmp_path: Path, user: str | None, entrypoint: str | None
) -> None:
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, user=user)
        run_id = unserved(one)
        refused = await execute(one, run_id, peer=STRANGER, entrypoint=entrypoint)
        assert isinstance(refused, Refused)
        assert (refused.status, "set run.user" in refused.detail) == (403, True)
        assert (one.spawner.started, one.engine.prefect.state_of(run_id)) == ([], "SCHEDULED")
        owner = replace(STRANGER, uid=os.geteuid() if user != "root" else 0)
        assert not isinstance(await execute(one, run_id, peer=owner, entrypoint=entrypoint), Refused)


async def test_a_member_runs_code_as_the_user_of_flows(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, user="nobody")
        assert (await spec_of(one, unserved(one), peer=STRANGER, entrypoint=CODE)).user == "nobody"


@pytest.mark.parametrize("user", ["root", None])
async def test_what_was_permitted_for_one_user_is_not_started_as_another(tmp_path: Path, user: str | None) -> None:
    """The API is away between the request and the start, and an administrator reloads."""
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, user="nobody")
        run_id = unserved(one)
        one.engine.prefect.trouble("set_state", times=3)
        asking = asyncio.create_task(execute(one, run_id, peer=STRANGER, entrypoint=CODE))
        await one.engine.until(lambda: one.engine.phase(run_id) == "claiming")
        set_host_run(one.engine, user=user)
        await asking
        record = await one.engine.until_done(run_id)
        assert (one.spawner.started, record.started_at) == ([], None)
        assert "run.user of this host has changed" in (record.failure or "")


async def test_a_user_who_does_not_exist(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, user="no-such-user")
        refused = await execute(one, unserved(one), entrypoint=CODE)
        assert isinstance(refused, Refused)
        assert (refused.status, "there is no such user" in refused.detail) == (409, True)


async def test_served_runs_are_as_before_for_every_client(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, user="root")
        run_id = one.engine.add_run(one.engine.deploy(run={"user": "nobody"}))
        assert (await spec_of(one, run_id, peer=STRANGER)).user == "nobody"
        (record,) = one.engine.supervisor.records()
        assert record.guest is None


# --- on record ----------------------------------------------------------------------------------------------------


async def test_the_next_daemon_knows_the_code(tmp_path: Path) -> None:
    async with daemon(tmp_path, launches=True) as one:
        set_host_run(one.engine, user="nobody")
        run_id = unserved(one)
        await spec_of(one, run_id, entrypoint=CODE)
        record = one.engine.journal.run(run_id)
        assert record is not None
        assert record.guest == Guest(entrypoint=CODE, deployment="theirs", flow="pooled", user="nobody")
        hooks = await one.engine.launcher.prepare_hooks(record)
        assert isinstance(hooks, LaunchSpec)
        assert (hooks.user, hooks.environment["PREFECT__FLOW_ENTRYPOINT"]) == ("nobody", CODE)
        assert KEY not in str(one.engine.lines.all())


@pytest.mark.parametrize(("deployed", "state"), [(True, "SCHEDULED"), (False, "CRASHED")])
async def test_a_guest_without_a_deployment_is_not_rescheduled_to_nobody(
    tmp_path: Path, deployed: bool, state: str
) -> None:
    async with daemon(tmp_path, launches=True, then="reschedule") as one:
        set_host_run(one.engine, user="nobody")
        run_id = unserved(one)
        if not deployed:
            one.engine.prefect.runs[run_id]["deployment_id"] = None
        await spec_of(one, run_id, entrypoint=CODE)
        one.engine.prefect.set_state(run_id, "RUNNING")
        one.engine.supervisor.evict_all()
        await one.engine.until_done(run_id)
        assert one.engine.prefect.state_of(run_id) == state
