"""deployments.py: the configuration, its deployments and its work pools."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runnerd.core.place import Place, Problem
from runnerd.core.prefect import WorkPool
from runnerd.core.settings import Config, InvalidDeployment, PoolSettings
from runnerd.deployments.registry import Entry
from runnerd.doctor.checks import Check
from runnerd.doctor.deployments import check_configuration, check_deployments, check_pools
from runnerd.pools.table import Served
from tests.kits.checks import state_and_words
from tests.kits.doctor import practice
from tests.kits.engine_parts import poll_and_look_up
from tests.kits.nouns import a_deployment

PLACE = Place("/etc/runnerd/conf.d/10.yaml", 3, 5)


def test_configuration() -> None:
    state_and_words(check_configuration([], 1), "ok", "1 file in force")
    two = [Problem(message="unknown key 'x'", place=PLACE), Problem(message="y")]
    state_and_words(
        check_configuration(two, 3), "error", f"{PLACE}: unknown key 'x' and 1 more", "runnerctl config check"
    )


def test_deployments(tmp_path: Path) -> None:
    config = Config(settings=None)  # type: ignore[arg-type]
    ready = Entry(deployment=a_deployment("ready"), flow="etl", deployment_id="d-1")
    paused = Entry(deployment=a_deployment("paused"), flow="etl", deployment_id="d-2", paused=True)
    state_and_words(check_deployments([ready, paused], config), "ok", "2 registered, 1 of them paused")
    waiting = Entry(deployment=a_deployment("waiting"))
    state_and_words(check_deployments([ready, waiting], config), "warning", "not registered in Prefect yet: waiting")
    failed = replace(waiting, problem="there is no function f")
    one = check_deployments([ready, failed], config)
    state_and_words(one, "error", "cannot register waiting: there is no function f", "runnerctl status")
    two = check_deployments([failed, replace(failed, flow="etl")], config)
    state_and_words(two, "error", "cannot register waiting, etl/waiting: waiting: there is no function f")
    held = [Problem(message=f"cannot delete the deployment etl/{name}", place=PLACE) for name in ("old", "older")]
    words = f"{PLACE}: cannot delete the deployment etl/old; and 1 more, which runnerctl status lists"
    state_and_words(check_deployments([ready, waiting], config, held), "error", words)
    flaw = Problem(message="parameters.x: the flow 'etl' has no parameter 'x'", place=PLACE)
    flawed = replace(ready, flaws=(flaw, flaw))
    words = (f"{PLACE}: parameters.x: ", "; and 1 more", "correct the file")
    state_and_words(check_deployments([flawed, paused], config), "warning", *words)
    state_and_words(check_deployments([flawed, failed], config), "error", "cannot register waiting")
    stale = replace(ready, invalid=True, problem="unknown key")
    dead = replace(config, invalid=(InvalidDeployment(name=None, place=PLACE, problem="no name"),))
    details = (
        "cannot run a deployment without a name",
        "cannot apply the configuration of etl/ready",
        "the last valid one",
    )
    state_and_words(check_deployments([stale], dead), "error", *details)


async def test_drops_that_are_held_back(tmp_path: Path) -> None:
    async with practice(tmp_path, held_drops=[Problem(message="cannot delete the deployment etl/old")]) as one:
        check = (await one.examine())["deployments"]
        assert (check["state"], check["detail"]) == ("error", "cannot delete the deployment etl/old")


def test_work_pools() -> None:
    state_and_words(check_pools([], []), "ok", "none configured")
    settings = PoolSettings(name="etl", run=a_deployment().run, place=Place("f"))
    unknown = Served(settings=settings)
    known = replace(unknown, pool=WorkPool(id="p-1", name="etl", type="process"))
    state_and_words(check_pools([known], []), "ok", "serving etl")
    state_and_words(check_pools([known, unknown], []), "warning", "not read from Prefect yet: etl", "the api check")
    problem = check_pools([known], [(known, "there is no type dock")])
    state_and_words(problem, "error", "cannot serve etl: there is no type dock", "tries again")


async def test_runs_that_nothing_takes_up(tmp_path: Path) -> None:
    async with practice(tmp_path) as one:
        assert (await one.examine())["runs"]["state"] == "ok"
        deployment = one.engine.deploy()
        ids = [one.engine.add_run(deployment, in_s=-3600.0) for _ in range(2)]
        for run_id in ids:
            one.engine.prefect.runs[run_id]["empirical_policy"] |= {"retries": 1, "retry_type": "in_process"}
            one.engine.prefect.runs[run_id]["state"]["name"] = "AwaitingRetry"
        check = (await one.examine())["runs"]
        assert (check["state"], any(run_id in check["detail"] for run_id in ids)) == ("warning", True)
        assert check["detail"].endswith("; and 1 more, which runnerctl status lists")
        assert "runnerctl execute" in check["remedy"]
        one.engine.prefect.down = True
        check = (await one.examine())["runs"]
        assert (check["state"], check["remedy"]) == ("unknown", "see the api check")


async def test_a_run_that_waits_for_the_slot_of_its_parent(tmp_path: Path) -> None:
    async with practice(tmp_path, runs=1) as one:
        parent = one.engine.add_run(one.engine.deploy())
        await one.engine.poller.poll_once()
        await one.engine.until(lambda: one.engine.phase(parent) == "running")
        child = one.engine.prefect.child_of(parent, one.engine.add_run(one.engine.deploy("child")))
        await poll_and_look_up(one.engine.poller)
        check = Check(**(await one.examine())["runs"])
        words = (f"({child}) waits: limits.runs 1 is reached: its parent run", f"({parent}) holds the only slot")
        state_and_words(check, "warning", *words, f"runnerctl execute {child}; and raise this limit", "another pool")
        one.engine.prefect.down = True
        assert (await one.examine())["runs"]["detail"] == check.detail, "known without the API"


async def test_two_parents_that_hold_both_slots_for_which_their_children_wait(tmp_path: Path) -> None:
    async with practice(tmp_path, runs=2) as one:
        parents = [one.engine.add_run(one.engine.deploy(name)) for name in ("a", "b")]
        await one.engine.poller.poll_once()
        await one.engine.until(lambda: all(one.engine.phase(parent) == "running" for parent in parents))
        deployment = one.engine.deploy("child")
        children = [one.engine.add_run(deployment) for _ in parents]
        one.engine.prefect.child_of(parents[0], children[0])
        await poll_and_look_up(one.engine.poller)
        assert (await one.examine())["runs"]["state"] == "ok", "the other parent's end frees a slot"
        one.engine.prefect.child_of(parents[1], children[1])
        await poll_and_look_up(one.engine.poller)
        check = (await one.examine())["runs"]
        assert (check["state"], "one of the 2 slots" in check["detail"]) == ("warning", True)
        assert check["detail"].endswith("; and 1 more, which runnerctl status lists")


async def test_a_warm_interpreter_that_has_failed(tmp_path: Path) -> None:
    async with practice(tmp_path) as one:
        assert (await one.examine())["warm interpreters"]["state"] == "ok"
    async with practice(tmp_path, warm=[Problem(message="cannot start a warm interpreter of /opt/python")]) as one:
        check = (await one.examine())["warm interpreters"]
        assert (check["state"], check["detail"]) == ("warning", "cannot start a warm interpreter of /opt/python")


async def test_notices_that_cannot_be_sent(tmp_path: Path) -> None:
    async with practice(tmp_path) as one:
        assert (await one.examine())["notices"]["state"] == "ok"
    problems = [Problem(message="cannot send the notice a"), Problem(message="cannot send the notice b")]
    async with practice(tmp_path, notices=problems) as one:
        check = (await one.examine())["notices"]
        words = "cannot send the notice a; and 1 more, which runnerctl status lists"
        assert (check["state"], check["detail"]) == ("warning", words)
