"""registrar.py, requesting.py, retrying.py: what is slow, refused or broken holds up no other, and is tried again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runnerd.deployments.inspection import InspectionFailure
from runnerd.deployments.registry import EntryState
from runnerd.deployments.retrying import RETRY_FIRST_S, RETRY_MAX_S
from tests.kits.nouns import a_deployment
from tests.kits.registrar import BROKEN, FakeInspector, Host, a_host, flow

A, B = a_deployment("a"), a_deployment("b")
MANY = [a_deployment(f"d{number}") for number in range(91)]
SLOW = InspectionFailure(kind="slow", message="a.py: importing it took longer than 5s")


def posts(host: Host) -> list[str]:
    return [asked for asked in host.prefect.asked if asked == "POST /deployments/"]


@pytest.mark.parametrize(
    ("match", "every"), [("POST /deployments/", 3), ("POST /flows/", 3), ("GET /deployments/name", 3), ("", 4)]
)
async def test_a_server_that_refuses_now_and_then(tmp_path: Path, match: str, every: int) -> None:
    loop = asyncio.get_running_loop()
    async with a_host(tmp_path) as host:
        host.prefect.trouble(match, status=503, times=10_000, every=every)
        began = loop.time()
        await host.want(*MANY)
        assert {entry.state for entry in host.registry.entries()} == {EntryState.READY}
        assert len(host.prefect.deployments) == len(MANY)
        assert loop.time() - began < 60
        assert len(host.inspector.asked) == len(MANY), "each flow is inspected once"
        assert len(host.prefect.asked) < 6 * len(MANY)
        assert len(posts(host)) < 3 * len(MANY)


@pytest.mark.parametrize("status", [None, 503, 401])
async def test_an_outage_in_the_middle_costs_few_requests(tmp_path: Path, status: int | None) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A)
        host.prefect.trouble("POST /flows/", status=status, times=10_000)
        host.begin(A, *MANY)
        await asyncio.sleep(600)
        host.prefect.asked.clear()
        await asyncio.sleep(600)
        assert 1 <= len(host.prefect.asked) <= 4 * 600 / 15
        host.prefect.troubles.clear()
        await host.registrar.settled.wait()
        assert len(host.inspector.asked) == 1 + len(MANY)


async def test_a_slow_import_holds_up_no_other(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=FakeInspector(answers={A.entrypoint: SLOW})) as host:
        host.begin(A, *MANY)
        await asyncio.sleep(30)
        ready = [entry for entry in host.registry.entries() if entry.state is EntryState.READY]
        assert len(ready) == len(MANY) and host.registered[-1] == len(MANY)
        assert not host.registrar.settled.is_set()
        host.begin(A, B, *MANY)
        await asyncio.sleep(30)
        assert host.entry(B).state is EntryState.READY
        host.inspector.release.set()
        await host.registrar.settled.wait()
        assert host.entry(A).state is EntryState.READY


async def test_a_hanging_one_is_inspected_at_once_when_it_changes(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=FakeInspector(answers={A.entrypoint: SLOW})) as host:
        host.begin(A, B)
        await asyncio.sleep(30)
        host.inspector.answers[A.entrypoint] = flow("etl")
        await host.rechecker.check()
        await host.registrar.settled.wait()
        assert host.entry(A).state is EntryState.READY
        host.inspector.alone[A.entrypoint] = BROKEN
        host.inspector.release.set()
        await asyncio.sleep(1)
        assert host.registrar.problems() == ()


async def test_a_broken_one_is_tried_again_by_itself(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=FakeInspector(answers={A.entrypoint: BROKEN})) as host:
        await host.want(A, B)
        await asyncio.sleep(3600)
        assert host.registrar.settled.is_set()
        assert 3600 / RETRY_MAX_S <= host.inspector.asked.count(A.entrypoint) <= 3600 / RETRY_MAX_S + 6
        assert host.inspector.asked.count(B.entrypoint) == 1
        assert host.lines.events("warning").count("cannot register a deployment") == 1
        host.inspector.answers[A.entrypoint] = flow("etl")
        await asyncio.sleep(RETRY_MAX_S)
        assert host.entry(A).state is EntryState.READY
        assert host.registrar.problems() == ()
        asked = len(host.inspector.asked)
        await asyncio.sleep(3600)
        assert len(host.inspector.asked) == asked


async def test_one_the_api_rejects_is_tried_again_alone(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        host.prefect.trouble("POST /deployments/", status=422)
        await host.want(A, B)
        assert (host.entry(A).state, host.entry(B).state) == (EntryState.UNREGISTERED, EntryState.READY)
        await asyncio.sleep(2 * RETRY_FIRST_S)
        assert host.entry(A).state is EntryState.READY
        assert len(posts(host)) == 3 and len(host.inspector.asked) == 2
        assert host.registrar.problems() == ()


async def test_a_reload_ends_what_was_tried_again(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=FakeInspector(answers={A.entrypoint: BROKEN})) as host:
        await host.want(A, B)
        await host.want(B)
        asked = len(host.inspector.asked)
        await asyncio.sleep(3600)
        assert len(host.inspector.asked) == asked
        assert [entry.deployment.name for entry in host.registry.entries()] == ["b"]


async def test_one_removed_while_it_is_registered_is_dropped(tmp_path: Path) -> None:
    for steps in range(12):
        (folder := tmp_path / str(steps)).mkdir()
        async with a_host(folder) as host:
            host.begin(A, B)
            for _ in range(steps):
                await asyncio.sleep(0)
            await host.want(B)
            await asyncio.sleep(60)
            assert all(one["paused"] for one in host.prefect.deployments.values() if one["name"] == "a")
            assert host.stored("b")["paused"] is False
