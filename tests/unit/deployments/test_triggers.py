"""triggers.py through a registrar: automations are made once, made anew when they change, and go with their file."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.settings import key_of
from runnerd.deployments.registry import EntryState
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import URL, Json, a_deployment, copied
from tests.kits.registrar import FakeInspector, Host, a_host


def a_trigger(name: str, **more: Json) -> Json:
    about = {"name": name, "description": "", "enabled": True, "parameters": None, "job_variables": None}
    kinds = {"match": {}, "match_related": {}, "after": [], "expect": [], "for_each": []}
    event = {"type": "event", **kinds, "posture": "Reactive", "threshold": 1, "within": 0.0}
    return {**about, "schedule_after": 0.0, **event, **more}


ONE, TWO = a_trigger("one", expect=["x"]), a_trigger("two", parameters={"a": "{{ event.id }}"}, schedule_after=60.0)
PLAIN = a_deployment("a")
A = replace(PLAIN, triggers=(ONE, TWO))
REFUSED = a_trigger("odd", type="metric")


def names(host: Host) -> list[str]:
    (found,) = [one["id"] for one in host.prefect.deployments.values() if one["name"] == "a"]
    return [one["name"] for one in host.prefect.automations.owned_by(found)]


def of_automations(asked: list[str]) -> list[str]:
    return [one.split("/")[0].strip() for one in asked if "/automations" in one]


async def test_automations_are_made_once(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        (deployment_id,) = host.registry.ids()
        one, two = prefect.automations.owned_by(deployment_id)
        assert one["owner_resource"] == f"prefect.deployment.{deployment_id}"
        run = {"type": "run-deployment", "source": "selected", "deployment_id": deployment_id}
        assert one["actions"] == [{**run, "parameters": None, "job_variables": None}]
        assert two["actions"] == [
            {**run, "parameters": TWO["parameters"], "job_variables": None, "schedule_after": 60.0}
        ]
        assert one["trigger"]["expect"] == ["x"]
    copied(prefect)
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        assert copied(prefect) == []
        await host.want(replace(A, description="changed"))
        assert of_automations(copied(prefect)) == [], "somebody may have paused one of them"


async def test_a_change_makes_all_anew_and_leaves_others(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A)
        foreign = {"name": "foreign", "owner_resource": None}
        host.prefect.automations.made["7"] = foreign
        copied(host.prefect)
        await host.want(replace(A, triggers=(TWO,)))
        assert (names(host), of_automations(copied(host.prefect))) == (["two"], ["DELETE", "POST"])
        await host.want(PLAIN)
        assert (names(host), of_automations(copied(host.prefect))) == ([], ["DELETE"])
        await host.want(replace(PLAIN, description="changed"))
        assert of_automations(copied(host.prefect)) == []
        assert list(host.prefect.automations.made.values()) == [foreign]


async def test_those_of_a_deployment_that_is_taken_over_go(tmp_path: Path) -> None:
    """As Prefect's own deploy does; a new deployment costs no request for that."""
    prefect = FakePrefect(major=3)
    async with a_host(tmp_path, prefect) as host:
        await host.want(PLAIN, a_deployment("new"))
        assert of_automations(copied(prefect)) == []
        (deployment_id,) = [one["id"] for one in prefect.deployments.values() if one["name"] == "a"]
        prefect.automations.made["1"] = {"name": "old", "owner_resource": f"prefect.deployment.{deployment_id}"}
    (tmp_path / "another").mkdir()
    async with a_host(tmp_path / "another", prefect) as host:
        await host.want(PLAIN)
        assert prefect.automations.made == {}


@pytest.mark.parametrize("after", [False, True], ids=["not made", "made"])
async def test_an_answer_that_was_lost_makes_no_double(tmp_path: Path, after: bool) -> None:
    prefect = FakePrefect(major=3)
    prefect.trouble("POST /automations", after=after, times=2, every=2)
    async with a_host(tmp_path, prefect) as host:
        await host.want(A)
        assert names(host) == ["one", "two"]
        assert host.entry(A).problem is None


async def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    prefect.trouble("/automations", status=503, times=5)
    async with a_host(tmp_path, prefect) as host:
        await host.want(A)
        assert (names(host), host.registrar.flaws()) == (["one", "two"], ())


async def test_a_server_that_fails_at_automations_only_is_a_flaw_and_asked_again(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    prefect.trouble("/automations", status=500, times=2)
    async with a_host(tmp_path, prefect) as host:
        await host.want(A)
        assert host.entry(A).state is EntryState.READY
        assert "HTTP 500" in host.registrar.flaws()[0].message
        while host.registrar.flaws():
            await asyncio.sleep(1)
        assert names(host) == ["one", "two"]


async def test_automations_that_cannot_be_deleted_now_are_deleted_later(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    async with a_host(tmp_path, prefect) as host:
        await host.want(A)
        prefect.trouble("DELETE /automations", status=500, times=2)
        await host.want(PLAIN)
        assert (names(host), len(host.registrar.flaws())) == (["one", "two"], 1)
        while host.registrar.flaws():
            await asyncio.sleep(1)
        assert names(host) == []


async def test_a_daemon_that_was_killed_meanwhile_makes_no_double(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        (known,) = host.journal.registrations(URL)
        host.journal.drop_registration(known)  # the automations are made, and the journal does not have it
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        assert names(host) == ["one", "two"]


async def test_a_trigger_that_is_refused_is_a_flaw_of_its_own(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    wanted = replace(A, triggers=(REFUSED, ONE))
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(wanted)
        assert host.entry(wanted).state is EntryState.READY
        assert names(host) == ["one"]
        (flaw,) = host.registrar.flaws()
        assert flaw.message.startswith("cannot make the triggers of the deployment: the API refuses 'odd': ")
        assert (flaw.place, flaw.key) == (A.place, "triggers")
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(wanted)
        assert len(host.registrar.flaws()) == 1, "it is still so after a restart"
        await host.want(A)
        assert (host.registrar.flaws(), names(host)) == ((), ["one", "two"])


async def test_a_server_without_automations_is_told_and_asked_again(tmp_path: Path) -> None:
    prefect = FakePrefect(major=2)
    prefect.automations.enabled = False
    wanted = replace(A, triggers=(ONE,))
    async with a_host(tmp_path, prefect) as host:
        await host.want(wanted)
        assert host.entry(wanted).state is EntryState.READY
        (flaw,) = host.registrar.flaws()
        assert "the server has no automations (Automations are not enabled. Please enable" in flaw.message
        assert host.lines.events("warning") == ["a deployment has no automations for its triggers"]
        prefect.automations.enabled = True
        while host.registrar.flaws():
            await asyncio.sleep(1)
        assert names(host) == ["one"]


async def test_a_delay_needs_a_server_of_3(tmp_path: Path) -> None:
    async with a_host(tmp_path, FakePrefect(major=2)) as host:
        await host.want(A)
        assert host.entry(A).problem == "a trigger with schedule_after needs a Prefect 3 server; remove this key"


@pytest.mark.parametrize("on_remove", ["pause", "delete"])
async def test_automations_go_with_their_deployment_and_come_back(tmp_path: Path, on_remove: Json) -> None:
    async with a_host(tmp_path) as host:
        wanted = replace(A, on_remove=on_remove)
        await host.want(wanted)
        await host.want()
        assert host.registry.get(key_of(A)) is None
        assert host.prefect.automations.made == {}
        await host.want(wanted)
        assert names(host) == ["one", "two"]
