"""The contract about flows and deployments."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from runnerd.core.errors import ApiRejected
from runnerd.core.place import Problem
from runnerd.core.prefect import ApiCondition
from runnerd.core.settings import Schedule
from runnerd.prefect_api.answers import ClaimOutcome
from runnerd.prefect_api.dialect import deployment_body
from tests.kits.contract import (
    INSPECTION,
    NOBODY,
    SCHEMA,
    Server,
    deployment,
    due,
    new_id,
)

Json = Any


async def test_a_flow_is_made_once(server: Server) -> None:
    async with server.visit() as visit:
        name = f"flow-{new_id()}"
        first = await visit.insist(lambda: visit.api.ensure_flow(name, ["a"]))
        assert await visit.insist(lambda: visit.api.ensure_flow(name, ["a"])) == first
        assert await visit.insist(lambda: visit.api.read_flow(first)) == name
        with pytest.raises(ApiRejected) as caught:
            await visit.insist(lambda: visit.api.ensure_flow("no/slashes"))
        assert caught.value.status == 422 and "name: " in str(caught.value)


async def test_deployments_that_are_missing_are_found_out_together(server: Server) -> None:
    async with server.visit() as visit:
        name = f"flow-{new_id()}"
        flow = await visit.insist(lambda: visit.api.applier.ensure_flow(name))
        again = await visit.insist(lambda: visit.api.applier.ensure_flow(name))
        assert again.id == flow.id and not again.is_new
        there, other = await visit.deploy(deployment(name="there")), await visit.deploy(deployment(name="other"))
        assert there.flow_id == other.flow_id != flow.id
        names = ["there", "other", "absent"]
        assert await visit.insist(lambda: visit.api.applier.missing(there.flow_id, names)) == {"absent"}
        assert await visit.insist(lambda: visit.api.applier.missing(flow.id, names)) == set(names)


async def test_a_check_asks_for_nothing_and_makes_the_health_current(server: Server) -> None:
    async with server.visit() as visit:
        await visit.insist(visit.api.check)
        assert visit.api.health.condition is ApiCondition.OK


async def test_applying_the_same_deployment_twice_is_one_deployment(server: Server) -> None:
    async with server.visit() as visit:
        wanted = deployment(schedules=(Schedule(cron="0 2 * * *"), Schedule(interval_s=3600)))
        first, second = await visit.deploy(wanted), await visit.deploy(wanted)
        if server.is_before("3.2.0"):  # an upsert, which makes the schedules anew
            second = replace(second, schedule_ids=first.schedule_ids)
        assert (first.is_new, second.is_new) == (True, False)
        assert replace(first, is_new=False) == second
        assert len((await visit.stored(first.id))["schedules"]) == 2
        found = await visit.insist(lambda: visit.api.find_deployment("contract", wanted.name))
        assert found == replace(first, schedule_ids=(), is_new=False)


async def test_everything_of_a_deployment_arrives_and_leaves_again(server: Server) -> None:
    server.skip_before("3.0.3", "the limit of a deployment has no strategy")
    full = deployment(
        parameters={"x": 3},
        tags=("etl", "nightly"),
        description="Loads yesterday.",
        version="2.1",
        enforce_parameter_schema=False,
        concurrency_limit=2,
        collision_strategy="CANCEL_NEW",
        paused=True,
        schedules=(Schedule(cron="0 2 * * *"),),
    )
    empty = replace(deployment(), name=full.name)
    async with server.visit() as visit:
        info = await visit.deploy(full)
        assert info.paused
        stored = await visit.stored(info.id)
        assert (stored["entrypoint"], stored["path"]) == ("flows/etl.py:nightly", "/opt/etl")
        assert stored["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "/opt/etl"}}]
        assert (stored["parameters"], sorted(stored["tags"])) == ({"x": 3}, ["etl", "nightly"])
        assert (stored["description"], stored["version"]) == ("Loads yesterday.", "2.1")
        assert (stored["enforce_parameter_schema"], stored["parameter_openapi_schema"]) == (False, SCHEMA)
        assert limit_of(stored, visit.major) == ((2, "CANCEL_NEW") if visit.major == 3 else None)

        info = await visit.update(empty, paused=False, sent=visit.sent(full, info))
        assert not info.paused
        stored = await visit.stored(info.id)
        assert (stored["parameters"], stored["tags"], stored["schedules"]) == ({}, [], [])
        assert (stored["description"], stored["version"]) == ("What the code says.", None)
        assert stored["enforce_parameter_schema"] is True
        assert limit_of(stored, visit.major) is None


def limit_of(stored: Json, major: int) -> tuple[int, str] | None:
    limit = stored.get("concurrency_limit") or (stored.get("global_concurrency_limit") or {}).get("limit")
    return (limit, stored["concurrency_options"]["collision_strategy"]) if limit else None


async def test_a_pause_made_by_others_can_be_kept(server: Server) -> None:
    async with server.visit() as visit:
        wanted = deployment()
        info = await visit.deploy(wanted)
        assert await visit.insist(lambda: visit.api.pause_deployment(info.id))
        again = await visit.insist(
            lambda: visit.api.apply_deployment(visit.body(wanted), flow_id=info.flow_id, paused=True)
        )
        assert again.id == info.id and again.paused


@pytest.mark.parametrize(
    ("schedule", "stored_rule"),
    [
        (
            Schedule(cron="0 2 * * *", timezone="Europe/Berlin"),
            {"cron": "0 2 * * *", "timezone": "Europe/Berlin", "day_or": True},
        ),
        (
            Schedule(cron="0 2 1 * mon", timezone="UTC", day_or=False),
            {"cron": "0 2 1 * mon", "timezone": "UTC", "day_or": False},
        ),
        (
            Schedule(interval_s=90.5, anchor_date="2024-03-01T06:00:00+00:00", timezone="Europe/Berlin"),
            {"interval": 90.5, "anchor_date": datetime(2024, 3, 1, 6, tzinfo=UTC), "timezone": "Europe/Berlin"},
        ),
        (
            Schedule(interval_s=3600, timezone="UTC"),
            {"interval": 3600, "anchor_date": datetime(2020, 1, 1, tzinfo=UTC), "timezone": "UTC"},
        ),
        (
            Schedule(rrule="FREQ=DAILY;BYHOUR=9", timezone="America/New_York"),
            {"rrule": "FREQ=DAILY;BYHOUR=9", "timezone": "America/New_York"},
        ),
    ],
    ids=["cron", "cron day_and", "interval anchor", "interval", "rrule"],
)
async def test_a_schedule_arrives(server: Server, schedule: Schedule, stored_rule: Json) -> None:
    async with server.visit() as visit:
        info = await visit.deploy(schedules=(schedule, replace(schedule, active=False)))
        stored = (await visit.stored(info.id))["schedules"]
        assert sorted(each["active"] for each in stored) == [False, True]
        for each in stored:
            rule = each["schedule"]
            if "anchor_date" in rule:
                rule["anchor_date"] = datetime.fromisoformat(rule["anchor_date"])
            if "rrule" in rule:  # 3.x puts a line with a DTSTART before it
                rule["rrule"] = rule["rrule"].splitlines()[-1]
            assert rule == stored_rule


async def test_schedules_without_a_timezone_are_taken(server: Server) -> None:
    async with server.visit() as visit:
        several = (Schedule(cron="0 2 * * *"), Schedule(interval_s=60), Schedule(rrule="FREQ=DAILY"))
        info = await visit.deploy(schedules=several)
        assert len((await visit.stored(info.id))["schedules"]) == 3


async def test_max_scheduled_runs_of_a_schedule_is_kept(server: Server) -> None:
    async with server.visit() as visit:
        wanted = deployment(schedules=(Schedule(cron="0 2 * * *", max_scheduled_runs=2), Schedule(cron="0 3 * * *")))
        for _ in range(2):
            info = await visit.deploy(wanted)
            stored = (await visit.stored(info.id))["schedules"]
            found = {each["schedule"]["cron"]: each["max_scheduled_runs"] for each in stored}
            assert found == {"0 2 * * *": 2, "0 3 * * *": None}


async def test_a_schedule_with_its_own_parameters_needs_3(server: Server) -> None:
    server.skip_before("3.2.0", "schedules have neither slug nor parameters")
    wanted = deployment(schedules=(Schedule(cron="0 2 * * *", slug="night", parameters={"x": 9}),))
    async with server.visit() as visit:
        if visit.major == 2:
            problem = deployment_body(wanted, INSPECTION, major=2)
            assert isinstance(problem, Problem) and problem.place == wanted.place
            return
        info = await visit.deploy(wanted)
        (stored,) = (await visit.stored(info.id))["schedules"]
        assert (stored["slug"], stored["parameters"]) == ("night", {"x": 9})


async def test_the_other_majors_body_is_rejected_in_words(server: Server) -> None:
    """The reason why bodies are exact."""
    async with server.visit() as visit:
        flow_id = await visit.insist(lambda: visit.api.ensure_flow("contract", []))
        odd = {"concurrency_limit": 1} if visit.major == 2 else {"is_schedule_active": True}
        wanted = visit.body(deployment())
        with pytest.raises(ApiRejected) as caught:
            await visit.insist(
                lambda: visit.api.apply_deployment(replace(wanted, json={**wanted.json, **odd}), flow_id=flow_id)
            )
        assert caught.value.status == 422 and next(iter(odd)) in str(caught.value)
        assert visit.api.health.condition is ApiCondition.OK


async def test_a_deployment_is_paused_resumed_read_and_deleted(server: Server) -> None:
    async with server.visit() as visit:
        info, other = await visit.deploy(), await visit.deploy()
        api = visit.api

        async def read() -> dict[str, bool]:
            found = await visit.insist(lambda: api.read_deployments([info.id, NOBODY, other.id]))
            return {each.id: each.paused for each in found}

        assert await visit.insist(lambda: api.pause_deployment(info.id)) is True
        assert await read() == {info.id: True, other.id: False}
        assert await visit.insist(lambda: api.resume_deployment(info.id)) is True
        assert await read() == {info.id: False, other.id: False}
        assert await visit.insist(lambda: api.delete_deployment(info.id)) is True
        assert await read() == {other.id: False}


async def test_a_run_made_by_hand_survives_a_pause(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.deploy()
        run = await visit.new_run(info.id)
        await visit.insist(lambda: visit.api.pause_deployment(info.id))
        assert [each.id for each in await due(visit, info.id)] == [run.id]


async def test_the_scheduled_runs_of_a_deleted_deployment_are_gone(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.deploy()
        run = await visit.new_run(info.id)
        await visit.insist(lambda: visit.api.delete_deployment(info.id))
        claim = await visit.insist(lambda: visit.api.claim(run.id, transition_id=new_id()))
        assert claim.outcome is ClaimOutcome.GONE


async def test_what_does_not_exist_is_a_value(server: Server) -> None:
    async with server.visit() as visit:
        api = visit.api
        for nobody in (NOBODY, "no-uuid", "../deployments", ""):
            assert await visit.insist(lambda nobody=nobody: api.read_run(nobody)) is None
            assert await visit.insist(lambda nobody=nobody: api.read_flow(nobody)) is None
            assert await visit.insist(lambda nobody=nobody: api.history(nobody)) == []
            assert await visit.insist(lambda nobody=nobody: api.pause_deployment(nobody)) is False
            assert await visit.insist(lambda nobody=nobody: api.resume_deployment(nobody)) is False
            assert await visit.insist(lambda nobody=nobody: api.delete_deployment(nobody)) is False
            assert await visit.insist(lambda nobody=nobody: api.read_deployments([nobody])) == []
        assert await visit.insist(lambda: api.find_deployment("no such flow", "d/e?f")) is None
        assert api.health.condition is ApiCondition.OK
