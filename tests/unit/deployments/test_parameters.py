"""Parameters that a file declares and the flow lacks: Prefect takes the deployment, and each run of it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.place import Place
from runnerd.core.settings import Schedule
from runnerd.deployments.registry import EntryState
from tests.kits.config import ConfigDir
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, a_deployment
from tests.kits.registrar import FakeInspector, a_host, flow


def schema(*names: str) -> Json:
    return {"type": "object", "properties": {name: {} for name in names}}


@pytest.mark.parametrize("major", [2, 3])
async def test_a_parameter_that_the_flow_lacks(tmp_path: Path, major: int) -> None:
    at = Place("/etc/runnerd/conf.d/10.yaml", 5, 9)
    wrong = replace(a_deployment("a", parameters={"rowz": 1}), parameter_places={"parameters.rowz": at})
    inspector = FakeInspector(answers={"a.py:flow": flow("etl", schema=schema("rows", "region"))})
    prefect = FakePrefect(major=major)
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(wrong)
        (problem,) = host.registrar.flaws()
        words = "parameters.rowz: the flow 'etl' has no parameter 'rowz', and each run with it fails"
        assert (problem.place, problem.deployment) == (at, "a")
        assert problem.message == f"{words}; did you mean 'rows'?"
        assert host.entry(wrong).state is EntryState.READY, "the server takes it"
        assert host.stored("a")["parameters"] == {"rowz": 1}
        await host.want(wrong)
        assert host.lines.events("warning") == ["a deployment has a parameter that its flow lacks"], "logged once"
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(wrong)
        assert host.registrar.flaws() == (problem,), "also where nothing has to be registered"
        await host.want(replace(wrong, parameters={"rows": 1}))
        assert host.registrar.flaws() == ()


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (schema("kwargs"), "; its parameters are kwargs"),  # Prefect refuses other names for **kwargs too
        (schema(), "; it has none"),
        ({}, None),  # nothing is known of the flow
        (schema("x"), None),
    ],
)
async def test_what_is_known_of_the_flow(tmp_path: Path, known: Json, words: str | None) -> None:
    deployment = a_deployment("a", parameters={"x": 1})
    inspector = FakeInspector(answers={"a.py:flow": flow("etl", schema=known)})
    async with a_host(tmp_path, None, inspector) as host:
        await host.want(deployment)
        found = [problem.message for problem in host.registrar.flaws()]
        assert (found == []) is (words is None)
        assert words is None or found[0].endswith(f"each run with it fails{words}")


async def test_the_parameters_of_a_schedule(tmp_path: Path) -> None:
    schedules = (Schedule(cron="@daily"), Schedule(cron="@hourly", parameters={"rows": 1, "area": "eu"}))
    inspector = FakeInspector(answers={"a.py:flow": flow("etl", schema=schema("rows"))})
    async with a_host(tmp_path, None, inspector) as host:
        await host.want(a_deployment("a", schedules=schedules))
        (problem,) = host.registrar.flaws()
        assert problem.message.startswith("schedules[1].parameters.area: the flow 'etl' has no parameter 'area'")


def test_the_places_of_parameters(tmp_path: Path) -> None:
    etc = ConfigDir(tmp_path)
    text = """\
    deployments:
      - name: a
        entrypoint: flows/etl.py:nightly
        parameters: {rows: 1,
          region: eu}
        schedule: {cron: "@daily", parameters: {rows: 2}}
        schedules:
          - cron: "@hourly"
            parameters:
              rows: 3
    """
    deployment = etc.one(text)
    assert {key: (place.line, place.column) for key, place in deployment.parameter_places.items()} == {
        "parameters.rows": (4, 18),
        "parameters.region": (5, 7),
        "schedules[0].parameters.rows": (6, 45),
        "schedules[1].parameters.rows": (10, 11),
    }
    moved = replace(deployment, place=deployment.place, parameter_places={})
    assert moved == deployment, "places alone are no change"
