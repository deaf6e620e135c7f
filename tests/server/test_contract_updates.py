"""The contract about updates: what the files do not state, and what others have made in Prefect, stays as it is."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest

from runnerd.core.errors import ApiRejected
from runnerd.core.prefect import Inspection
from runnerd.core.settings import Schedule
from tests.kits.contract import INSPECTION, SCHEMA, Server, Visit, deployment

Json = Any
TWO, THREE, FOUR = (Schedule(cron=f"0 {hour} * * *") for hour in (2, 3, 4))
FOREIGN = {"schedule": {"cron": "30 9 * * *", "timezone": "Europe/Berlin"}, "active": False, "max_scheduled_runs": 2}
NEW_CODE = replace(INSPECTION, parameter_schema={**SCHEMA, "title": "New"})


async def schedules(visit: Visit, deployment_id: str) -> dict[str, Json]:
    """The schedules by their cron expressions."""
    stored = (await visit.stored(deployment_id))["schedules"]
    found = {each["schedule"]["cron"]: each for each in stored}
    assert len(found) == len(stored)
    return found


async def switch(visit: Visit, deployment_id: str, schedule: Json, *, active: bool) -> None:
    """As `prefect deployment schedule pause` does."""
    path = f"/deployments/{deployment_id}/schedules/{schedule['id']}"
    assert (await visit.raw("PATCH", path, {"active": active})).status_code == 204


async def add_foreign(visit: Visit, deployment_id: str) -> Json:
    """As `prefect deployment schedule create` does."""
    made = await visit.raw("POST", f"/deployments/{deployment_id}/schedules", [FOREIGN])
    assert made.status_code == 201
    return made.json()[0]


def without_id(schedule: Json) -> Json:
    changing = {"id", "created", "updated"}
    return {key: value for key, value in schedule.items() if key not in changing}


@pytest.mark.parametrize("inspection", [INSPECTION, NEW_CODE], ids=["same schema", "new schema"])
async def test_toggles_and_schedules_of_others_stay(server: Server, inspection: Inspection) -> None:
    async with server.visit() as visit:
        wanted = deployment(schedules=(TWO, THREE))
        info = await visit.deploy(wanted)
        before = await schedules(visit, info.id)
        assert [before[one.cron or ""]["id"] for one in wanted.schedules] == list(info.schedule_ids)
        await switch(visit, info.id, before["0 3 * * *"], active=False)
        foreign = await add_foreign(visit, info.id)
        await visit.insist(lambda: visit.api.pause_deployment(info.id))

        changed = replace(wanted, description="New words.")
        again = await visit.update(changed, sent=visit.sent(wanted, info), inspection=inspection)
        stored, after = await visit.stored(info.id), await schedules(visit, info.id)
        assert (again.id, again.paused, stored["paused"]) == (info.id, True, True)
        assert (stored["description"], stored["parameter_openapi_schema"]) == (
            "New words.",
            inspection.parameter_schema,
        )
        assert {cron: each["active"] for cron, each in after.items()} == {
            "0 2 * * *": True,
            "0 3 * * *": False,
            "30 9 * * *": False,
        }
        assert without_id(after["30 9 * * *"]) == without_id(foreign)
        assert again.schedule_ids == (after["0 2 * * *"]["id"], after["0 3 * * *"]["id"])
        if visit.major == 3 or inspection is INSPECTION:
            assert again.schedule_ids == info.schedule_ids and after["30 9 * * *"]["id"] == foreign["id"]


async def test_what_is_stated_is_so(server: Server) -> None:
    async with server.visit() as visit:
        wanted = deployment(schedules=(replace(TWO, active=False), replace(THREE, active=True)), paused=True)
        info = await visit.deploy(wanted)
        before = await schedules(visit, info.id)
        assert {cron: each["active"] for cron, each in before.items()} == {"0 2 * * *": False, "0 3 * * *": True}
        assert info.paused
        await switch(visit, info.id, before["0 2 * * *"], active=True)
        await switch(visit, info.id, before["0 3 * * *"], active=False)
        await visit.insist(lambda: visit.api.resume_deployment(info.id))
        again = await visit.update(wanted, sent=visit.sent(wanted, info))
        after = await schedules(visit, info.id)
        assert {cron: each["active"] for cron, each in after.items()} == {"0 2 * * *": False, "0 3 * * *": True}
        assert again.paused and (await visit.stored(info.id))["paused"]

        plain = replace(wanted, schedules=(TWO, THREE), paused=None)
        await visit.update(plain, sent=visit.sent(wanted, again))
        after = await schedules(visit, info.id)
        assert all(each["active"] for each in after.values()), "what was switched off by the file alone is on again"


async def test_edited_and_removed_schedules(server: Server) -> None:
    async with server.visit() as visit:
        wanted = deployment(schedules=(TWO, replace(THREE, max_scheduled_runs=2)))
        info = await visit.deploy(wanted)
        before = await schedules(visit, info.id)
        await switch(visit, info.id, before["0 2 * * *"], active=False)
        foreign = await add_foreign(visit, info.id)

        edited = replace(wanted, schedules=(FOUR, THREE))
        again = await visit.update(edited, sent=visit.sent(wanted, info))
        after = await schedules(visit, info.id)
        assert after.keys() == {"0 4 * * *", "0 3 * * *", "30 9 * * *"}
        assert (after["0 4 * * *"]["id"], after["0 4 * * *"]["active"]) == (before["0 2 * * *"]["id"], False)
        assert after["0 3 * * *"]["max_scheduled_runs"] is None
        assert again.schedule_ids == (after["0 4 * * *"]["id"], after["0 3 * * *"]["id"])

        last = await visit.update(replace(edited, schedules=()), sent=visit.sent(edited, again))
        after = await schedules(visit, info.id)
        assert last.schedule_ids == ()
        assert {cron: each["id"] for cron, each in after.items()} == {"30 9 * * *": foreign["id"]}


async def test_what_is_not_known_to_be_ours_is_not_deleted(server: Server) -> None:
    """Nor made a second time, after an answer was lost or a journal."""
    async with server.visit() as visit:
        wanted = deployment(schedules=(TWO, THREE))
        info = await visit.deploy(wanted)
        again = await visit.update(replace(wanted, schedules=(TWO, FOUR)))
        assert (await schedules(visit, info.id)).keys() == {"0 2 * * *", "0 3 * * *", "0 4 * * *"}
        assert again.schedule_ids[0] == info.schedule_ids[0]


async def test_a_slug_keeps_its_schedule(server: Server) -> None:
    async with server.visit() as visit:
        if visit.major == 2:
            return
        wanted = deployment(schedules=(replace(TWO, slug="night", parameters={"x": 9}), replace(THREE, slug="morning")))
        info = await visit.deploy(wanted)
        edited = replace(
            wanted, schedules=(replace(FOUR, slug="morning"), replace(wanted.schedules[0], cron="1 1 * * *"))
        )
        again = await visit.update(edited, sent=visit.sent(wanted, info))
        after = await schedules(visit, info.id)
        assert {cron: (each["slug"], each["parameters"]) for cron, each in after.items()} == {
            "0 4 * * *": ("morning", {}),
            "1 1 * * *": ("night", {"x": 9}),
        }
        assert again.schedule_ids == tuple(reversed(info.schedule_ids))
        fewer = replace(edited, schedules=(replace(edited.schedules[1], parameters=None),))
        last = await visit.update(fewer, sent=visit.sent(edited, again))
        (only,) = (await schedules(visit, info.id)).values()
        assert (only["id"], only["slug"], only["parameters"]) == (last.schedule_ids[0], "night", {})


async def test_a_work_pool_and_limits_of_a_deployment_are_changed_in_place(server: Server) -> None:
    async with server.visit() as visit:
        if visit.major == 2:
            return
        wanted = deployment(concurrency_limit=2, schedules=(TWO,))
        info = await visit.deploy(wanted)
        await visit.update(replace(wanted, concurrency_limit=None), sent=visit.sent(wanted, info))
        stored = await visit.stored(info.id)
        assert (stored.get("concurrency_limit") or stored.get("global_concurrency_limit")) is None
        assert [each["id"] for each in stored["schedules"]] == list(info.schedule_ids)


async def test_a_deployment_enters_a_work_pool_and_leaves_it(server: Server) -> None:
    async with server.visit() as visit:
        wanted = deployment(schedules=(TWO,))
        info = await visit.deploy(wanted)
        pooled = replace(wanted, work_pool="none-yet", job_variables={"env": {"A": "1"}})
        with pytest.raises(ApiRejected) as refusal:
            await visit.update(pooled, sent=visit.sent(wanted, info))
        assert refusal.value.status == 404

        pool = f"pool-{uuid.uuid4().hex[:8]}"
        assert (await visit.raw("POST", "/work_pools/", {"name": pool, "type": "process"})).status_code == 201
        pooled = replace(pooled, work_pool=pool)
        info = await visit.update(pooled, sent=visit.sent(wanted, info))
        stored = await visit.stored(info.id)
        assert (stored["work_pool_name"], stored["work_queue_name"], stored["path"]) == (pool, "default", None)
        assert (stored.get("job_variables") or stored["infra_overrides"]) == {"env": {"A": "1"}}

        foreign = await add_foreign(visit, info.id)
        described = replace(pooled, description="In a pool.", version="2")
        again = await visit.update(described, sent=visit.sent(pooled, info))
        stored = await visit.stored(info.id)
        assert again.schedule_ids == info.schedule_ids
        assert {each["id"] for each in stored["schedules"]} == {*info.schedule_ids, foreign["id"]}
        assert (stored["work_pool_name"], stored["description"], stored["version"]) == (pool, "In a pool.", "2")

        queued = replace(described, work_queue="fast")
        again = await visit.update(queued, sent=visit.sent(described, again))
        stored = await visit.stored(info.id)
        assert (stored["work_pool_name"], stored["work_queue_name"]) == (pool, "fast")

        await visit.update(wanted, sent=visit.sent(queued, again))
        stored = await visit.stored(info.id)
        left = pool if visit.major == 2 else None  # 2.20 has no request that takes a deployment out of its pool
        assert (stored["work_pool_name"], stored["path"]) == (left, wanted.run.working_directory)
        assert (stored["job_variables"] if visit.major == 3 else stored["infra_overrides"]) == {}
