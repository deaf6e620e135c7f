"""scheduled.py: for which scheduled runs a warm interpreter may be started ahead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runnerd.core.process import LaunchSpec
from runnerd.core.settings import key_of
from runnerd.deployments.launching import FlowLauncher
from runnerd.deployments.registry import Entry, Registry
from runnerd.deployments.scheduled import list_upcoming
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from tests.kits.nouns import NOON, URL, Json, a_deployment

READY = {"flow": "etl", "deployment_id": "d-1", "next_run_at": NOON, "prefect_version": "3.9.1"}


def registry_and_launcher() -> tuple[Registry, FlowLauncher]:
    registry = Registry()
    launcher = FlowLauncher(
        registry=registry,
        access=lambda: ApiAccess(url=URL, environment={"PREFECT_API_KEY": "hush"}),
        output_dir="/out",
        environments=Environments(environ={}, calls=BoundedCalls()),
        worker_name=lambda: "etl-1",
    )
    return registry, launcher


async def test_the_launch_spec_is_that_of_a_run() -> None:
    registry, launcher = registry_and_launcher()
    registry.put(Entry(deployment=a_deployment(run={"preload": ("pandas",)}), **READY))
    (upcoming,) = list_upcoming(registry, launcher)
    assert (upcoming.deployment, upcoming.at) == ("d-1", NOON)
    prepared = await upcoming.prepare()
    assert isinstance(prepared.start, LaunchSpec)
    assert prepared.start.argv[-1] == "prefect.engine"
    wish = prepared.warm
    assert wish is not None
    assert (wish.start, wish.preload, wish.owner, wish.prefect_version) == ("auto", ("pandas",), "d-1", "3.9.1")


@pytest.mark.parametrize(
    ("entry", "deployment"),
    [
        ({"next_run_at": None}, {}),
        ({"paused": True}, {}),
        ({"invalid": True}, {}),
        ({"deployment_id": None}, {}),
        ({}, {"work_pool": "etl"}),
        ({}, {"run": {"start": "cold"}}),
    ],
)
def test_those_that_need_none(entry: Json, deployment: Json) -> None:
    registry, launcher = registry_and_launcher()
    registry.put(Entry(deployment=a_deployment(**deployment), **{**READY, **entry}))
    assert list(list_upcoming(registry, launcher)) == []


async def test_a_deployment_that_left_meanwhile() -> None:
    registry, launcher = registry_and_launcher()
    entry = Entry(deployment=a_deployment(), **READY)
    registry.put(replace(entry, deployment_id="d-1"))
    (upcoming,) = list_upcoming(registry, launcher)
    registry.remove(key_of(entry.deployment))
    prepared = await upcoming.prepare()
    assert isinstance(prepared.start, str)
