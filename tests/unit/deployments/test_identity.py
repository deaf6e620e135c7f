"""A deployment is (flow, name), as in the API: what is one, what are two, and what is refused as a double."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.place import Place
from runnerd.core.settings import Deployment, key_of
from runnerd.deployments.inspection import InspectionFailure
from runnerd.deployments.inspector import InspectionResult
from runnerd.deployments.matching import match_declarations
from runnerd.deployments.planning import ConfigChanges
from runnerd.deployments.registry import EntryState
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import URL, a_deployment, copied
from tests.kits.registrar import BROKEN, FakeInspector, Host, a_host, flow

FIRST, SECOND = Place("/etc/runnerd/conf.d/30-team-a.yaml", 4, 3), Place("/etc/runnerd/conf.d/30-team-b.yaml", 4, 3)


def of_team(team: str, place: Place, **run: object) -> Deployment:
    """One entrypoint and one name in every team's directory."""
    where = {"working_directory": f"/srv/team-{team}", **run}
    return a_deployment("prod", entrypoint="flow.py:main", place=place, run=where)


A, B = of_team("a", FIRST), of_team("b", SECOND)


def teams() -> FakeInspector:
    return FakeInspector(of_key={key_of(A): flow("team a report"), key_of(B): flow("team b report")})


def paused_by_flow(prefect: FakePrefect) -> dict[str, object]:
    return {prefect.flows[one["flow_id"]]["name"]: one["paused"] for one in prefect.deployments.values()}


BOTH_LIVE = {"team a report": False, "team b report": False}


async def test_two_projects_live_side_by_side(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), teams()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        assert await host.want(A, B) == ConfigChanges(added=("prod",), unchanged=1)
        assert paused_by_flow(prefect) == BOTH_LIVE
        assert [entry.full_name for entry in host.registry.entries()] == ["team a report/prod", "team b report/prod"]
        assert host.registrar.problems() == ()
        copied(prefect)
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
        assert copied(prefect) == [], "a restart knows which registration is whose"
        await host.want(B)
        assert paused_by_flow(prefect) == {"team a report": True, "team b report": False}
        await host.want(A, B)
        assert paused_by_flow(prefect) == BOTH_LIVE


async def test_the_environment_may_make_two_of_one_file(tmp_path: Path) -> None:
    one = of_team("a", FIRST, environment={"STAGE": "test"})
    other = of_team("a", FIRST, environment={"STAGE": "live"})
    inspector = FakeInspector(of_key={key_of(one): flow("test report"), key_of(other): flow("live report")})
    async with a_host(tmp_path, inspector=inspector) as host:
        await host.want(one, other)
        assert paused_by_flow(host.prefect) == {"test report": False, "live report": False}


async def test_two_flows_of_one_file_under_one_name(tmp_path: Path) -> None:
    one, other = replace(A, entrypoint="flow.py:one"), replace(A, entrypoint="flow.py:other")
    inspector = FakeInspector(answers={"flow.py:one": flow("one"), "flow.py:other": flow("other")})
    async with a_host(tmp_path, inspector=inspector) as host:
        await host.want(one, other)
        assert paused_by_flow(host.prefect) == {"one": False, "other": False}
        assert [len(host.registry.find(ref)) for ref in ("prod", "one/prod", "other/prod")] == [2, 1, 1]


# --- doubles ------------------------------------------------------------------------------------------------------


def is_refused(host: Host, double: Deployment, first: Deployment) -> bool:
    entry = host.entry(double)
    (problem,) = [one for one in host.registrar.problems() if one.place == double.place]
    named = all(str(place) in problem.message for place in (double.place, first.place))
    return named and entry.problem == problem.message and entry.state is EntryState.INVALID


@pytest.mark.parametrize("first", [A, B], ids=["of the first file", "of the second file"])
async def test_the_one_that_stood_first_stays_as_it_was(tmp_path: Path, first: Deployment) -> None:
    """Wherever its file stands in the order, and over a restart."""
    prefect, inspector = FakePrefect(major=3), FakeInspector(answers={A.entrypoint: flow("report")})
    double = B if first is A else A
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(first)
        (before,) = [dict(one) for one in prefect.deployments.values()]
        await host.want(A, B)
        assert is_refused(host, double, first)
        assert host.entry(first).state is EntryState.READY
        assert [dict(one) for one in prefect.deployments.values()] == [before]
        (found,) = host.registry.find("report/prod")
        assert host.registry.find("prod") == [found] and found.deployment == first
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
        assert is_refused(host, double, first)
        await host.want(A, replace(B, description="edited"))
        assert host.stored("prod")["path"] == first.run.working_directory
        assert host.stored("prod")["paused"] is False


async def test_a_double_takes_over_when_the_first_is_gone(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=FakeInspector(answers={A.entrypoint: flow("report")})) as host:
        await host.want(A, B)
        (deployment_id,) = host.prefect.deployments
        await host.want(B)
        assert (host.stored("prod")["path"], host.stored("prod")["paused"]) == ("/srv/team-b", False)
        assert host.entry(B).deployment_id == deployment_id
        assert host.registrar.problems() == ()


async def test_a_flow_renamed_to_one_that_another_file_has(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=teams()) as host:
        await host.want(A, B)
        host.inspector.of_key[key_of(B)] = flow("team a report")
        host.inspector.known.clear()
        await host.want(A, B)
        assert is_refused(host, B, A)
        assert paused_by_flow(host.prefect) == BOTH_LIVE, "what the API has of the second goes on"


async def test_a_double_takes_over_when_the_first_gets_another_flow(tmp_path: Path) -> None:
    """At once, though another is still being inspected and nothing has to be asked of the API for the first."""
    inspector = FakeInspector(of_key={key_of(A): flow("report"), key_of(B): flow("renamed")})
    slow = a_deployment("slow", place=FIRST)
    async with a_host(tmp_path, inspector=inspector) as host:
        first = replace(A, on_remove="delete")
        await host.want(first)
        host.prefect.trouble("DELETE /deployments", status=409, times=1_000_000)  # the old name's stays as it is
        await rename(host, first, flow("renamed"))
        await host.want(first, B, slow)
        assert is_refused(host, B, first)
        await rename(host, slow, InspectionFailure(kind="slow", message="importing it took longer than 5s"))
        await rename(host, first, BROKEN)
        await rename(host, first, flow("report"), by_itself=True)
        assert host.entry(first).full_name == "report/prod"
        assert not host.registrar.settled.is_set()
        assert (host.entry(B).full_name, host.entry(B).state) == ("renamed/prod", EntryState.READY)
        assert host.registrar.problems() == ()


async def rename(host: Host, deployment: Deployment, answer: InspectionResult, *, by_itself: bool = False) -> None:
    """Give its flow another name, which is found by a check or, after a failure, by itself."""
    host.inspector.of_key[key_of(deployment)] = answer
    host.inspector.known.pop(key_of(deployment), None)
    if not by_itself:
        host.registrar.inspect_again([deployment])
    await asyncio.sleep(60 if by_itself else 5)


# --- what is the same over an edit --------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", [{"working_directory": "/srv/new"}, {"environment": {"STAGE": "new"}}])
async def test_an_edited_entry_keeps_its_deployment(tmp_path: Path, edit: dict[str, object]) -> None:
    async with a_host(tmp_path, inspector=teams()) as host:
        await host.want(A, B)
        edited = of_team("a", FIRST, **edit)
        host.inspector.of_key[key_of(edited)] = BROKEN
        deployment_id = host.entry(A).deployment_id
        assert await host.want(edited, B) == ConfigChanges(changed=("team a report/prod",), unchanged=1)
        assert host.entry(edited).deployment_id == deployment_id
        host.inspector.of_key[key_of(edited)] = flow("renamed")
        await host.want(edited, B)
        assert paused_by_flow(host.prefect) == {"team a report": True, "team b report": False, "renamed": False}
        assert len(host.journal.registrations(URL)) == 3


async def test_edited_while_the_daemon_was_down(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), teams()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A, B)
    edited = of_team("a", FIRST, environment={"STAGE": "new"})
    inspector.of_key[key_of(edited)] = flow("renamed")
    async with a_host(tmp_path, prefect, inspector) as host:
        host.begin(edited, B)
        assert set(host.registry.ids()) == set(prefect.deployments), "runs of the last daemon need their deployments"
        await host.registrar.settled.wait()
        assert paused_by_flow(prefect) == {"team a report": True, "team b report": False, "renamed": False}


MOVED = of_team("a", SECOND, python="/opt/new/bin/python")  # to another file and another interpreter at once


@pytest.mark.parametrize("on_remove", ["pause", "delete"])
@pytest.mark.parametrize("trouble", ["inspection", "POST /flows/"])
@pytest.mark.parametrize("restart", [False, True])
async def test_one_that_moved_is_not_dropped_before_it_is_registered_anew(
    tmp_path: Path, on_remove: str, trouble: str, restart: bool
) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector(answers={A.entrypoint: flow("report")})
    inspector.of_key[key_of(MOVED)] = BROKEN if trouble == "inspection" else flow("report")
    first, moved = replace(A, on_remove=on_remove), replace(MOVED, on_remove=on_remove, description="moved")
    other = a_deployment("other", place=FIRST)
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(first, other)
        (before,) = [dict(one) for one in prefect.deployments.values() if one["name"] == "prod"]
        if not restart:
            await refuse_and_move(host, moved, trouble)
            assert host.stored("prod") == before
            await register_anew(host, moved)
    if restart:
        async with a_host(tmp_path, prefect, inspector) as host:
            await refuse_and_move(host, moved, trouble)
            assert host.stored("prod") == before
            await register_anew(host, moved)
    assert {one["id"]: one["paused"] for one in prefect.deployments.values() if one["name"] == "prod"} == {
        before["id"]: False
    }


async def refuse_and_move(host: Host, moved: Deployment, trouble: str) -> None:
    host.prefect.trouble(trouble, status=500, times=1_000_000)
    await asyncio.wait_for(host.want(moved), 120)
    await asyncio.sleep(600)
    assert host.entry(moved).state is EntryState.UNREGISTERED
    assert host.stored("other")["paused"] is True, "it holds up no other"
    assert host.lines.events("warning").count("a deployment is not dropped yet") == 1


async def register_anew(host: Host, moved: Deployment) -> None:
    host.prefect.troubles.clear()
    host.inspector.of_key[key_of(moved)] = flow("report")
    await asyncio.sleep(300)
    assert host.entry(moved).state is EntryState.READY


async def test_one_that_turns_out_to_be_another_lets_the_old_one_be_dropped(tmp_path: Path) -> None:
    inspector = FakeInspector(answers={A.entrypoint: flow("report")}, of_key={key_of(MOVED): BROKEN})
    async with a_host(tmp_path, inspector=inspector) as host:
        await host.want(A)
        await host.want(MOVED)
        assert paused_by_flow(host.prefect) == {"report": False}
        host.prefect.trouble("POST /flows/", status=500, times=9)
        inspector.of_key[key_of(MOVED)] = flow("renamed")
        await asyncio.sleep(1200)
        assert paused_by_flow(host.prefect) == {"report": True, "renamed": False}


async def test_one_that_is_being_registered_anew_is_not_dropped_meanwhile(tmp_path: Path) -> None:
    inspector = FakeInspector(answers={A.entrypoint: flow("report")}, of_key={key_of(MOVED): flow("other")})
    moved = replace(MOVED, description="moved")
    async with a_host(tmp_path, inspector=inspector) as host:
        await host.want(replace(A, on_remove="delete"))
        host.prefect.trouble("DELETE /deployments", status=500, times=1_000_000)
        host.prefect.trouble("GET /deployments/name/other", status=500, times=1_000_000)
        await asyncio.wait_for(host.want(moved), 120)
        host.prefect.troubles.clear()
        host.prefect.trouble("POST /flows/", times=1_000_000)  # no answer: the registration is under way for long
        await rename(host, moved, flow("report"), by_itself=True)
        await asyncio.sleep(1200)
        assert paused_by_flow(host.prefect) == {"report": False}
        host.prefect.troubles.clear()
        await asyncio.sleep(60)
        assert host.entry(moved).full_name == "report/prod"
        assert paused_by_flow(host.prefect) == {"report": False}


async def test_one_of_the_same_name_that_is_removed_as_well_holds_up_nothing(tmp_path: Path) -> None:
    inspector = FakeInspector(answers={A.entrypoint: flow("report")}, of_key={key_of(MOVED): BROKEN})
    async with a_host(tmp_path, inspector=inspector) as host:
        await host.want(A)
        await host.want(MOVED)
        await host.want()
        assert paused_by_flow(host.prefect) == {"report": True}


def test_a_new_declaration_is_never_taken_for_the_one_of_another_file() -> None:
    assert match_declarations([B], [A]) == {}
    assert match_declarations([replace(A, place=SECOND)], [A]) == {key_of(A): key_of(A)}
    assert match_declarations([B, A], [A]) == {key_of(A): key_of(A)}
