"""registrar.py: a failure concerns only its own deployment; what users change in Prefect is respected or corrected."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.place import Place, Problem
from runnerd.core.settings import Schedule
from runnerd.deployments.registry import EntryState
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import a_deployment
from tests.kits.registrar import BROKEN, FakeInspector, a_host, flow

A, B = a_deployment("a"), a_deployment("b")
ELSEWHERE = Place("/etc/runnerd/conf.d/20.yaml", 1, 1)


# --- of one deployment --------------------------------------------------------------------------------------------


async def test_a_failing_inspection_concerns_only_its_deployment(tmp_path: Path) -> None:
    inspector = FakeInspector(answers={A.entrypoint: BROKEN})
    async with a_host(tmp_path, inspector=inspector) as host:
        await host.want(A, B)
        assert (host.entry(A).state, host.entry(B).state) == (EntryState.UNREGISTERED, EntryState.READY)
        assert host.registrar.problems() == (Problem(message=BROKEN.message, place=A.place, deployment="a"),)
        inspector.change(A.entrypoint, flow("etl"))
        await host.want(A, B)
        assert (host.entry(A).state, host.registrar.problems()) == (EntryState.READY, ())


async def test_what_nobody_foresaw_of_one_deployment_concerns_only_that_one(tmp_path: Path) -> None:
    odd = replace(flow("etl"), parameter_schema=7)  # type: ignore[arg-type]
    async with a_host(tmp_path, inspector=FakeInspector(answers={A.entrypoint: odd})) as host:
        await host.want(A, B)
        assert "cannot register the deployment: TypeError" in (host.entry(A).problem or "")
        assert host.entry(B).state is EntryState.READY
        assert [line["item"] for line in host.lines.all() if "item" in line] == ["deployment a"]


async def test_an_answer_about_one_deployment_that_is_no_use_holds_up_no_other(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        host.prefect.trouble("POST /deployments/", status=201, body={"id": "none", "name": "a"}, times=1)
        host.prefect.trouble("POST /deployments/", status=500, times=1)
        host.begin(A, B, a_deployment("c"))
        await asyncio.sleep(0.9)
        assert [one["name"] for one in host.prefect.deployments.values()] == ["c"], "in the same round"
        await host.registrar.settled.wait()
        assert (host.entry(A).state, host.entry(B).state) == (EntryState.READY, EntryState.READY)


async def test_the_last_good_version_stays_registered_when_the_code_breaks(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A)
        host.inspector.change(A.entrypoint, BROKEN)
        await host.want(replace(A, description="new"))
        assert host.entry(A).problem == BROKEN.message
        assert host.registry.ids() == list(host.prefect.deployments)
        assert host.stored("a")["paused"] is False


async def test_one_the_api_rejects(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        host.prefect.trouble("POST /deployments/", status=422, body={"exception_message": "tags are too long"})
        await host.want(A, B)
        assert "the API rejects the deployment: " in (host.entry(A).problem or "")
        assert "tags are too long" in (host.entry(A).problem or "")
        assert host.entry(B).state is EntryState.READY


async def test_one_whose_work_pool_is_missing_is_registered_when_the_pool_exists(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(replace(A, work_pool="etl"))
        problem = "there is no work pool 'etl'; create it (runnerctl pool create etl), or name another"
        for _ in range(3):
            assert host.entry(A).problem == problem
            await asyncio.sleep(60)
        assert host.lines.getvalue().count("cannot register a deployment") == 1
        host.prefect.pools.create_pool("etl")
        await asyncio.sleep(300)
        assert (host.entry(A).state, host.entry(A).problem) == (EntryState.READY, None)
        assert host.stored("a")["work_pool_name"] == "etl"


async def test_what_this_server_cannot_do(tmp_path: Path) -> None:
    async with a_host(tmp_path, FakePrefect(major=2)) as host:
        await host.want(replace(A, schedules=(Schedule(cron="* * * * *", slug="s"),)), B)
        assert "needs a Prefect 3 server" in (host.entry(A).problem or "")
        assert host.entry(B).state is EntryState.READY


async def test_a_flow_that_is_not_the_one_the_file_names(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(replace(A, flow_name="elt"), replace(B, flow_name="etl"))
        assert host.entry(A).problem == "flow_name is elt, but the code says etl"
        assert host.entry(B).state is EntryState.READY


async def test_one_name_in_two_flows(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        other = replace(A, entrypoint="other.py:flow")
        host.inspector.answers["other.py:flow"] = flow("other")
        await host.want(A, other)
        assert [entry.full_name for entry in host.registry.entries()] == ["etl/a", "other/a"]
        assert len(host.prefect.deployments) == 2
        await host.want(A)
        paused = {one["entrypoint"]: one["paused"] for one in host.prefect.deployments.values()}
        assert paused == {A.entrypoint: False, "other.py:flow": True}


@pytest.mark.parametrize("status", [409, 422])
async def test_one_that_cannot_be_dropped_ends_nothing(tmp_path: Path, status: int) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A, B)
        host.prefect.trouble("PATCH /deployments", status=status)
        host.prefect.trouble("/pause_deployment", status=status)
        await host.want()
        assert sorted(bool(one["paused"]) for one in host.prefect.deployments.values()) == [False, True]
        assert "cannot drop a deployment" in host.lines.events("error")
        await host.want()
        assert all(one["paused"] for one in host.prefect.deployments.values())


# --- the API is away ------------------------------------------------------------------------------------------------


async def test_an_outage_is_waited_out(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        host.prefect.down = True
        host.begin(A, B)
        await asyncio.sleep(3600)
        assert not host.registrar.settled.is_set()
        assert host.entry(A).state is EntryState.UNREGISTERED
        host.prefect.down = False
        await host.registrar.settled.wait()
        assert host.entry(A).state is EntryState.READY
        assert host.registered[-1] == 2


async def test_repeating_tells_of_no_news(tmp_path: Path) -> None:
    """Each wake starts a poll, whose write SQLite may refuse beside a registration, so a retry wakes nothing."""
    async with a_host(tmp_path) as host:
        await host.want(A)
        told = len(host.registered)
        host.prefect.trouble("POST /deployments/", status=503, times=8)
        await host.want(A, B)
        assert host.registered[told:] == [1, 2]


async def test_what_is_refused_now_and_then_is_soon_repeated(tmp_path: Path) -> None:
    many = [a_deployment(f"d{number}") for number in range(12)]
    loop = asyncio.get_running_loop()
    async with a_host(tmp_path) as host:
        await host.want(*many)
        for deployment_id in host.registry.ids():
            host.prefect.trouble(f"PATCH /deployments/{deployment_id}", status=503)
        began = loop.time()
        await host.want()
        assert not any(trouble.times for trouble in host.prefect.troubles)
        assert loop.time() - began < 30  # a wait that doubled each time would be minutes


@pytest.mark.parametrize("status", [401, 403, 429, 503, 400, 422])
@pytest.mark.parametrize("match", ["/admin/version", "/flows/", "POST /deployments/"])
async def test_no_answer_of_the_api_ends_registering(tmp_path: Path, match: str, status: int) -> None:
    async with a_host(tmp_path) as host:
        host.prefect.trouble(match, status=status, times=3, body={"detail": "no"})
        await host.want(A, B)
        for _ in range(3):
            await host.want(A, B)
        assert [entry.state for entry in host.registry.entries()] == [EntryState.READY] * 2


async def test_a_lost_answer_makes_no_second_deployment(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        host.prefect.trouble("POST /deployments/", after=True, times=2)
        await host.want(A)
        assert host.registry.ids() == list(host.prefect.deployments)


async def test_dropping_goes_on_after_an_outage(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A, B)
        host.prefect.down = True
        host.begin(B)
        await asyncio.sleep(600)
        host.prefect.down = False
        await host.registrar.settled.wait()
        assert host.stored("a")["paused"] is True


async def test_wanted_again_while_it_could_not_be_dropped(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A, B)
        host.prefect.trouble("PATCH /deployments", status=503, times=20)
        host.begin(B)
        await asyncio.sleep(60)
        await host.want(A, B)
        await asyncio.sleep(3600)
        assert host.stored("a")["paused"] is False
        assert host.entry(A).state is EntryState.READY


@pytest.mark.parametrize("steps", range(8))
async def test_the_daemon_ends_while_it_drops_one(tmp_path: Path, steps: int) -> None:
    """Wherever it ends, the next one has it live where the files want it again."""
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
        host.begin(B)
        for _ in range(steps):
            await asyncio.sleep(0)
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
        assert host.stored("a")["paused"] is False
        assert host.entry(A).state is EntryState.READY


async def test_dropped_again_by_the_next_daemon(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
        prefect.down = True
        host.begin(B)
        await asyncio.sleep(0.5)
    prefect.down = False
    async with a_host(tmp_path, prefect, inspector) as host:
        assert host.stored("a")["paused"] is False
        await host.want(B)
        assert host.stored("a")["paused"] is True


async def test_read_again_while_the_last_reading_is_registered(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A)
        for at in range(12):
            host.begin(B)
            for _ in range(at):
                await asyncio.sleep(0)
            await host.want(replace(A, description=f"{at}"))
            assert host.stored("a")["description"] == f"{at}"
            assert host.stored("a")["paused"] is False
            (entry,) = host.registry.entries()
            assert entry.state is EntryState.READY
