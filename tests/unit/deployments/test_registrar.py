"""registrar.py with a FakePrefect: which deployments cost a request, are dropped, or fail alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.place import Place, Problem
from runnerd.core.settings import key_of
from runnerd.deployments.planning import ConfigChanges
from runnerd.deployments.registry import EntryState
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import URL, a_deployment, copied
from tests.kits.registrar import BROKEN, FakeInspector, a_host, flow

A, B = a_deployment("a"), a_deployment("b")
ELSEWHERE = Place("/etc/runnerd/conf.d/20.yaml", 1, 1)


def upserts(asked: list[str]) -> int:
    return asked.count("POST /deployments/")


# --- what costs a request ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("major", [2, 3])
async def test_registered_once_and_for_no_request_at_the_second_start(tmp_path: Path, major: int) -> None:
    prefect, inspector = FakePrefect(major=major), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        assert await host.want(A, B) == ConfigChanges(added=("a", "b"))
        assert [entry.state for entry in host.registry.entries()] == [EntryState.READY] * 2
        assert host.entry(A).full_name == "etl/a"
        assert host.registered[-1] == 2
        assert upserts(copied(prefect)) == 2
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
        assert copied(prefect) == []
        assert [entry.state for entry in host.registry.entries()] == [EntryState.READY] * 2
        assert inspector.asked == ["a.py:flow", "b.py:flow"]
        assert set(host.registry.ids()) == set(prefect.deployments)


async def test_a_second_start_with_the_api_away(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
    prefect.down = True
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        assert host.entry(A).state is EntryState.READY


async def test_what_the_api_has_is_known_from_the_first_moment(tmp_path: Path) -> None:
    """Runs of the last daemon are taken up before anything is registered, and need their deployments."""
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
    inspector.change(A.entrypoint, BROKEN)
    async with a_host(tmp_path, prefect, inspector) as host:
        host.begin(A, replace(B, description="changed"))
        assert set(host.registry.ids()) == set(prefect.deployments)
        await host.registrar.settled.wait()
        assert host.entry(A).problem == BROKEN.message
        assert set(host.registry.ids()) == set(prefect.deployments), "what the API has of it goes on"


async def test_a_change_is_one_change(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A, B)
        before = set(host.prefect.deployments)
        copied(host.prefect)
        changed = replace(A, parameters={"region": "eu"})
        assert await host.want(changed, B) == ConfigChanges(changed=("etl/a",), unchanged=1)
        assert [asked.split()[0] for asked in copied(host.prefect) if asked != "POST /flows/"] == ["GET", "PATCH"]
        assert host.stored("a")["parameters"] == {"region": "eu"}
        assert set(host.prefect.deployments) == before


async def test_what_only_concerns_this_host_costs_nothing(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A)
        copied(host.prefect)
        changed = a_deployment("a", run={"nice": 5, "user": "etl"}, place=ELSEWHERE)
        assert await host.want(changed) == ConfigChanges(changed=("etl/a",))
        assert copied(host.prefect) == []
        assert host.entry(A).deployment == changed


async def test_a_file_that_moved_changes_nothing(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A)
        copied(host.prefect)
        assert await host.want(replace(A, place=ELSEWHERE)) == ConfigChanges(unchanged=1)
        assert copied(host.prefect) == []
        (known,) = host.journal.registrations(URL)
        assert known.deployment.place == ELSEWHERE


# --- dropped ----------------------------------------------------------------------------------------------------


async def test_removed_ones_are_paused_once(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
        assert await host.want(B) == ConfigChanges(removed=("etl/a",), unchanged=1)
        assert (host.stored("a")["paused"], host.stored("b")["paused"]) == (True, False)
        assert host.registry.get(key_of(A)) is None
        copied(prefect)
        await host.want(B)
        assert copied(prefect) == []
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(B)
        assert copied(prefect) == []


async def test_removed_while_the_daemon_was_down(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(B)
        assert host.stored("a")["paused"] is True


async def test_removed_and_deleted_where_the_file_said_so(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(replace(A, on_remove="delete"), B)
        await host.want(B)
        assert [one["name"] for one in host.prefect.deployments.values()] == ["b"]
        assert [one.name for one in host.journal.registrations(URL)] == ["b"]


async def test_one_that_comes_back_is_no_longer_paused(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A, B)
        deployment_id = host.entry(A).deployment_id
        await host.want(B)
        await host.want(A, B)
        assert host.stored("a")["paused"] is False
        assert host.entry(A).deployment_id == deployment_id
        assert host.entry(A).state is EntryState.READY


async def test_a_broken_file_drops_nothing(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        other = replace(B, place=ELSEWHERE)
        await host.want(A, other)
        copied(host.prefect)
        await host.want(problems=[Problem(message="no YAML", place=Place(A.place.file, 7, 1))])
        assert (host.stored("a")["paused"], host.stored("b")["paused"]) == (False, True)


async def test_dropped_ones_that_somebody_deleted(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A, B)
        host.prefect.deployments.clear()
        await host.want(B)
        assert [one.name for one in host.journal.registrations(URL)] == ["b"]


@pytest.mark.parametrize("on_remove", ["pause", "delete"])
async def test_code_that_moved_is_the_same_deployment(tmp_path: Path, on_remove: str) -> None:
    """The entrypoint is another one, flow and name are the same: nothing was removed."""
    async with a_host(tmp_path) as host:
        old = replace(A, on_remove=on_remove)
        await host.want(old)
        new = replace(old, entrypoint="flows/moved.py:flow")
        await host.want(new)
        assert host.stored("a")["entrypoint"] == "flows/moved.py:flow"
        assert host.stored("a")["paused"] is False
        assert host.entry(new).state is EntryState.READY
        (known,) = host.journal.registrations(URL)
        assert (known.deployment.entrypoint, known.paused) == ("flows/moved.py:flow", False)


async def test_a_flow_that_was_renamed_leaves_no_deployment_running(tmp_path: Path) -> None:
    """The schedules of the deployment under the old name would go on creating runs."""
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        inspector.change(A.entrypoint, flow("etl2"))
        await host.want(A)
        names = {prefect.flows[one["flow_id"]]["name"]: one["paused"] for one in prefect.deployments.values()}
        assert names == {"etl": True, "etl2": False}
        assert host.entry(A).full_name == "etl2/a"
        copied(prefect)
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        assert copied(prefect) == []
        assert host.entry(A).full_name == "etl2/a"
