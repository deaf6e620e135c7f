"""registrar.py: what others do to the deployments of this host in Prefect."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.place import Place
from runnerd.core.record_feed import RecordFeed
from runnerd.core.settings import Schedule
from runnerd.core.wakes import Wakes
from runnerd.deployments.refresher import Refresher
from runnerd.deployments.registry import EntryState
from tests.kits.engine import an_ambient
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import NOON, URL, LogLines, a_deployment, copied, fake_api
from tests.kits.registrar import FakeInspector, a_host

A, B = a_deployment("a"), a_deployment("b")
ELSEWHERE = Place("/etc/runnerd/conf.d/20.yaml", 1, 1)


@pytest.mark.parametrize("moved", [False, True])
async def test_paused_in_the_ui_stays_paused_over_a_change(tmp_path: Path, moved: bool) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A)
        host.stored("a")["paused"] = True
        changed = replace(A, description="new", entrypoint="moved.py:flow" if moved else A.entrypoint)
        await host.want(changed)
        assert (host.stored("a")["description"], host.stored("a")["paused"]) == ("new", True)
        assert host.entry(changed).state is EntryState.PAUSED


@pytest.mark.parametrize("major", [2, 3])
async def test_schedules_made_or_switched_off_in_prefect_stay(tmp_path: Path, major: int) -> None:
    """Over an edit, over a drop and return, and over a restart."""
    prefect, inspector = FakePrefect(major=major), FakeInspector()
    two = replace(A, schedules=(Schedule(cron="0 2 * * *"), Schedule(cron="0 3 * * *")))
    foreign = {"id": "f", "schedule": {"cron": "0 9 * * *", "timezone": None}, "active": True}

    def stored() -> list[Any]:
        schedules: Any = host.stored("a")["schedules"]
        return list(schedules)

    def active() -> dict[str, bool]:
        return {each["schedule"]["cron"]: each["active"] for each in stored()}

    wanted = {"0 2 * * *": False, "0 3 * * *": True, "0 9 * * *": True}
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(two, B)
        stored()[0]["active"] = False
        host.stored("a")["schedules"] = [*stored(), {**foreign, "id": str(uuid.uuid4())}]
        await host.want(replace(two, description="new"), B)
        assert active() == wanted
        await host.want(B)
        assert host.stored("a")["paused"] is True
        await host.want(two, B)
        assert (host.stored("a")["paused"], active()) == (False, wanted)
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(replace(two, schedules=two.schedules[:1]), B)
        assert active() == {"0 2 * * *": False, "0 9 * * *": True}


async def test_what_the_file_states_is_so_again_at_its_next_change(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        stated = replace(A, paused=False)
        await host.want(stated)
        host.stored("a")["paused"] = True
        await host.want(replace(stated, description="new"))
        assert host.stored("a")["paused"] is False


async def test_paused_in_its_file(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(replace(A, paused=True))
        assert host.entry(A).state is EntryState.PAUSED
        await host.want(A)
        assert host.entry(A).state is EntryState.READY
        assert host.stored("a")["paused"] is False


async def test_deleted_in_the_api_and_registered_again(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A, B)
        refresher = Refresher(
            api=fake_api(host.prefect),
            registry=host.registry,
            registrar=host.registrar,
            feed=RecordFeed(),
            wakes=Wakes(),
            ambient=an_ambient(LogLines(), now=lambda: NOON, clock=lambda: 0.0),
        )
        gone = host.entry(A).deployment_id or ""
        del host.prefect.deployments[gone]
        host.stored("b")["paused"] = True
        await refresher.refresh()
        assert host.entry(B).state is EntryState.PAUSED
        await host.registrar.settled.wait()
        assert host.entry(A).state is EntryState.READY
        assert gone not in host.registry.ids()
        assert len(host.journal.registrations(URL)) == 2
        assert "a deployment was deleted in the API; registering it again" in host.lines.events("warning")
        copied(host.prefect)
        await refresher.refresh()
        assert host.registrar.settled.is_set()
