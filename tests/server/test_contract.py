"""One contract, four servers: FakePrefect as 2.20 and as 3.x, and the real ones that it stands for.

What a real server does is asserted here once; the fake is trusted elsewhere because it passes the same tests.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runnerd.core.errors import ApiRejected
from runnerd.core.place import Problem
from runnerd.core.prefect import ApiCondition, FlowRun, StateType, Verdict
from runnerd.core.settings import Schedule
from runnerd.prefect_api.answers import ApiRefusal, ClaimOutcome
from runnerd.prefect_api.dialect import deployment_body
from tests.kits.contract import INSPECTION, NOBODY, SCHEMA, Server, Visit, deployment, new_id, text

Json = Any


# --- the server itself ----------------------------------------------------------------------------------------


async def test_the_server_tells_its_version(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.insist(visit.api.server)
        assert (info.major, info.supported, info.why) == (visit.major, True, None)
        assert info.version == {2: "2.20.27", 3: "3.9.1"}[visit.major]
        assert visit.api.health.condition is ApiCondition.OK


# --- claiming -------------------------------------------------------------------------------------------------


async def test_a_claim_is_won(server: Server) -> None:
    async with server.visit() as visit:
        run, mine = await visit.new_run(), new_id()
        claim = await visit.insist(lambda: visit.api.claim(run.id, transition_id=mine))
        assert claim.outcome is ClaimOutcome.WON
        assert claim.state is not None and claim.state.transition_id == mine
        assert await visit.state_of(run.id) is StateType.PENDING


async def test_a_claim_whose_answer_was_lost_is_won_again(server: Server) -> None:
    async with server.visit() as visit:
        run, mine = await visit.new_run(), new_id()
        for _ in range(3):
            claim = await visit.insist(lambda: visit.api.claim(run.id, transition_id=mine))
            assert claim.outcome is ClaimOutcome.WON


async def test_a_claim_is_lost_to_a_rival(server: Server) -> None:
    async with server.visit() as visit:
        run, rival = await visit.new_run(), new_id()
        await visit.insist(lambda: visit.api.claim(run.id, transition_id=rival))
        claim = await visit.insist(lambda: visit.api.claim(run.id, transition_id=new_id()))
        assert claim.outcome is ClaimOutcome.LOST
        assert claim.state is not None and claim.state.transition_id == rival
        assert claim.reason


async def test_exactly_one_of_many_claims_is_won(server: Server) -> None:
    async with server.visit() as visit:
        run = await visit.new_run()
        ids = [new_id() for _ in range(4)]

        async def claim(mine: str) -> ClaimOutcome:
            return (await visit.insist(lambda: visit.api.claim(run.id, transition_id=mine))).outcome

        outcomes = await asyncio.gather(*(claim(mine) for mine in ids))
        assert sorted(outcomes) == [ClaimOutcome.LOST] * 3 + [ClaimOutcome.WON]


@pytest.mark.parametrize("path", [("PENDING", "RUNNING"), ("PENDING", "CANCELLING"), ("CANCELLED",)])
async def test_a_claim_of_a_run_that_moved_on_is_lost(server: Server, path: tuple[str, ...]) -> None:
    async with server.visit() as visit:
        run = await visit.in_state(*path)
        claim = await visit.insist(lambda: visit.api.claim(run.id, transition_id=new_id()))
        assert claim.outcome is ClaimOutcome.LOST
        assert await visit.state_of(run.id) is StateType(path[-1])


async def test_a_claim_of_a_deleted_run_is_gone(server: Server) -> None:
    async with server.visit() as visit:
        claim = await visit.insist(lambda: visit.api.claim(NOBODY, transition_id=new_id()))
        assert claim.outcome is ClaimOutcome.GONE


@pytest.mark.parametrize(
    ("strategy", "then"),
    [("ENQUEUE", (StateType.SCHEDULED, "AwaitingConcurrencySlot")), ("CANCEL_NEW", (StateType.CANCELLED, "Cancelled"))],
)
async def test_a_claim_over_the_deployments_limit_is_lost_where_the_server_counts(
    server: Server, strategy: Any, then: tuple[StateType, str]
) -> None:
    async with server.visit() as visit:
        info = await visit.deploy(concurrency_limit=1, collision_strategy=strategy)
        first, second = await visit.new_run(info.id), await visit.new_run(info.id)
        claim = await visit.insist(lambda: visit.api.claim(first.id, transition_id=new_id()))
        assert claim.outcome is ClaimOutcome.WON
        claim = await visit.insist(lambda: visit.api.claim(second.id, transition_id=new_id()))
        if visit.major == 2:
            assert claim.outcome is ClaimOutcome.WON  # here the limit is runnerd's own affair
            return
        assert claim.outcome is ClaimOutcome.LOST and claim.state is not None
        assert (claim.state.type, claim.state.name) == then
        await visit.propose(first.id, CANCELLED)
        if strategy == "ENQUEUE":
            claim = await visit.insist(lambda: visit.api.claim(second.id, transition_id=new_id()))
            assert claim.outcome is ClaimOutcome.WON


# --- reporting ------------------------------------------------------------------------------------------------

CANCELLED = Verdict(type=StateType.CANCELLED, message="cancelled here")
WISH = Verdict(type=StateType.CANCELLING)
CRASHED = Verdict(type=StateType.CRASHED, message="killed by SIGSEGV")
TIMED_OUT = Verdict(type=StateType.FAILED, name="TimedOut", message="runtime_max 2h")
AGAIN = Verdict(type=StateType.SCHEDULED, name="AwaitingRetry", scheduled_time=datetime.now(UTC))
PENDING, RUNNING, CANCELLING = ("PENDING",), ("PENDING", "RUNNING"), ("PENDING", "RUNNING", "CANCELLING")


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        (PENDING, CANCELLED),
        (RUNNING, CANCELLED),
        (CANCELLING, CANCELLED),
        ((*RUNNING, "CRASHED"), CANCELLED),
        ((*RUNNING, "PAUSED"), CANCELLED),
        ((*RUNNING, "SCHEDULED"), CANCELLED),
        ((*RUNNING, "COMPLETED"), CANCELLED),  # the server does not guard a success: hence read, decide, tell
        (PENDING, WISH),
        (RUNNING, WISH),
        (PENDING, CRASHED),
        (RUNNING, CRASHED),
        ((*RUNNING, "SCHEDULED"), CRASHED),  # nor a retry
        (RUNNING, TIMED_OUT),
        ((*RUNNING, "CRASHED"), TIMED_OUT),
        (PENDING, AGAIN),
        (RUNNING, AGAIN),
        ((*RUNNING, "CRASHED"), AGAIN),
        ((*RUNNING, "COMPLETED"), AGAIN),
    ],
    ids=lambda value: value.type.value if isinstance(value, Verdict) else value[-1],
)
async def test_a_verdict_is_accepted(server: Server, path: tuple[str, ...], verdict: Verdict) -> None:
    async with server.visit() as visit:
        run = await visit.in_state(*path)
        answer = await visit.propose(run.id, verdict)
        assert answer.accepted and not answer.gone
        after = await visit.insist(lambda: visit.api.read_run(run.id))
        assert after is not None
        told = (after.state.type, after.state.name, after.state.message)
        assert told == (verdict.type, verdict.name or verdict.type.value.capitalize(), verdict.message)


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        (CANCELLING, CRASHED),
        (CANCELLING, AGAIN),
        ((*RUNNING, "COMPLETED"), CRASHED),
        ((*RUNNING, "FAILED"), CRASHED),
        ((*RUNNING, "CANCELLED"), CRASHED),
        ((*RUNNING, "CRASHED"), CRASHED),
        ((*RUNNING, "COMPLETED"), WISH),  # so a cancel may be announced without a look at what has become of the run
        ((*RUNNING, "FAILED"), WISH),
        ((*RUNNING, "CRASHED"), WISH),
        ((*RUNNING, "CANCELLED"), WISH),
    ],
    ids=lambda value: value.type.value if isinstance(value, Verdict) else value[-1],
)
async def test_a_verdict_is_refused(server: Server, path: tuple[str, ...], verdict: Verdict) -> None:
    async with server.visit() as visit:
        run = await visit.in_state(*path)
        answer = await visit.propose(run.id, verdict)
        assert not answer.accepted and not answer.gone and answer.reason
        assert answer.state is not None and answer.state.type is StateType(path[-1])
        assert await visit.state_of(run.id) is StateType(path[-1])


async def test_a_verdict_told_twice_is_accepted_twice_and_recorded_once(server: Server) -> None:
    async with server.visit() as visit:
        run, mine = await visit.in_state(*RUNNING), new_id()
        first = await visit.propose(run.id, CRASHED, mine)
        before = (await visit.raw("GET", f"/flow_runs/{run.id}")).json()["state"]["id"]
        second = await visit.propose(run.id, CRASHED, mine)
        assert first.accepted and second.accepted
        assert (await visit.raw("GET", f"/flow_runs/{run.id}")).json()["state"]["id"] == before


async def test_a_verdict_on_a_deleted_run_is_gone(server: Server) -> None:
    async with server.visit() as visit:
        answer = await visit.propose(NOBODY, CRASHED)
        assert answer.gone and not answer.accepted


async def test_cancelling_a_scheduled_run_that_nobody_runs_cancels_it_at_once(server: Server) -> None:
    async with server.visit() as visit:
        run = await visit.new_run()
        answer = await visit.propose(run.id, Verdict(type=StateType.CANCELLING))
        assert not answer.accepted
        assert await visit.state_of(run.id) is StateType.CANCELLED


async def test_a_rescheduled_run_is_offered_again(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.deploy()
        run = await visit.new_run(info.id)
        await visit.insist(lambda: visit.api.claim(run.id, transition_id=new_id()))
        assert (await visit.propose(run.id, AGAIN)).accepted
        offered = await due(visit, info.id)
        assert [(each.id, each.state.name) for each in offered] == [(run.id, "AwaitingRetry")]


async def test_running_before_its_time_has_to_wait(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.deploy()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": text(5)}}
        run = (await visit.raw("POST", f"/deployments/{info.id}/create_flow_run", {"state": state})).json()
        await visit.insist(lambda: visit.api.claim(run["id"], transition_id=new_id()))
        if server.fake is not None:
            server.fake.runs[run["id"]]["expected_start_time"] = text(5)
        answer = await visit.propose(run["id"], Verdict(type=StateType.RUNNING))
        assert not answer.accepted and answer.wait_s is not None and 200 < answer.wait_s <= 300


# --- what is due ----------------------------------------------------------------------------------------------


async def due(visit: Visit, *deployment_ids: str, limit: int | None = None, minutes: float = 1) -> list[FlowRun]:
    before = datetime.now(UTC) + timedelta(minutes=minutes)
    return await visit.insist(
        lambda: visit.api.scheduled_runs(deployment_ids=deployment_ids, before=before, limit=limit)
    )


async def test_due_runs_come_earliest_first_and_up_to_a_limit(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.deploy(tags=("etl",))
        made = [await visit.new_run(info.id) for _ in range(3)]
        assert [run.id for run in await due(visit, info.id)] == [run.id for run in made]
        assert [run.id for run in await due(visit, info.id, limit=2)] == [run.id for run in made[:2]]
        assert [run.id for run in await due(visit, NOBODY, info.id, limit=1000)] == [run.id for run in made]
        first = (await due(visit, info.id))[0]
        assert first.state.type is StateType.SCHEDULED
        assert first.deployment_id == info.id and first.flow_id == info.flow_id and first.tags == ("etl",)
        assert first.next_scheduled_start_time is not None and first.expected_start_time is not None
        assert not first.auto_scheduled


async def test_a_schedule_makes_runs_and_a_pause_takes_them_back(server: Server) -> None:
    """The server's own scheduler at work: without it nothing ever falls due by itself."""
    async with server.visit() as visit:
        info = await visit.deploy(schedules=(Schedule(interval_s=3600),))
        if server.fake is not None:
            server.fake.add_run(info.id, due=datetime.now(UTC) + timedelta(minutes=30))
        offered: list[FlowRun] = []
        deadline = asyncio.get_running_loop().time() + 100
        while not offered and asyncio.get_running_loop().time() < deadline:
            offered = await due(visit, info.id, minutes=61)
            await asyncio.sleep(0.1)
        assert offered and offered[0].auto_scheduled
        await visit.insist(lambda: visit.api.pause_deployment(info.id))
        assert await due(visit, info.id, minutes=61) == []


async def test_only_scheduled_runs_of_the_asked_deployments_are_due(server: Server) -> None:
    async with server.visit() as visit:
        info, other = await visit.deploy(), await visit.deploy()
        run, claimed = await visit.new_run(info.id), await visit.new_run(info.id)
        await visit.new_run(other.id)
        await visit.insist(lambda: visit.api.claim(claimed.id, transition_id=new_id()))
        assert [each.id for each in await due(visit, info.id)] == [run.id]
        assert await due(visit, info.id, minutes=-5) == []
        assert await due(visit, NOBODY) == []
        assert await due(visit) == []


# --- flow runs ------------------------------------------------------------------------------------------------


async def test_a_run_is_created_with_parameters_name_and_tags(server: Server) -> None:
    async with server.visit() as visit:
        info = await visit.deploy(parameters={"x": 1}, tags=("etl",))
        made = await visit.insist(
            lambda: visit.api.create_run(info.id, parameters={"x": 5}, name="by-hand", tags=["now"])
        )
        assert isinstance(made, FlowRun)
        assert (made.name, made.parameters, set(made.tags)) == ("by-hand", {"x": 5}, {"etl", "now"})
        read = await visit.insist(lambda: visit.api.read_run(made.id))
        assert read is not None and read.parameters == {"x": 5} and read.state.type is StateType.SCHEDULED


async def test_the_same_idempotency_key_is_the_same_run(server: Server) -> None:
    async with server.visit() as visit:
        info, key = await visit.deploy(), new_id()
        made = [
            await visit.insist(lambda: visit.api.create_run(info.id, parameters={}, idempotency_key=key))
            for _ in range(2)
        ]
        assert isinstance(made[0], FlowRun) and isinstance(made[1], FlowRun)
        assert made[0].id == made[1].id


async def test_parameters_that_break_an_enforced_schema_are_refused_in_words(server: Server) -> None:
    async with server.visit() as visit:
        strict = await visit.deploy(enforce_parameter_schema=True)
        refused = await visit.insist(lambda: visit.api.create_run(strict.id, parameters={"x": "seven"}))
        assert isinstance(refused, ApiRefusal) and "seven" in refused.reason
        lax = await visit.deploy(enforce_parameter_schema=False)
        made = await visit.insist(lambda: visit.api.create_run(lax.id, parameters={"x": "seven"}))
        assert isinstance(made, FlowRun)


async def test_an_unknown_parameter_passes_even_an_enforced_schema(server: Server) -> None:
    """So whoever wants a misspelt parameter refused has to look at the schema himself."""
    async with server.visit() as visit:
        strict = await visit.deploy(enforce_parameter_schema=True)
        made = await visit.insist(lambda: visit.api.create_run(strict.id, parameters={"y": 1}))
        assert isinstance(made, FlowRun) and made.parameters["y"] == 1


async def test_a_run_of_no_deployment_is_refused(server: Server) -> None:
    async with server.visit() as visit:
        refused = await visit.insist(lambda: visit.api.create_run(NOBODY, parameters={}))
        assert isinstance(refused, ApiRefusal) and "not found" in refused.reason.lower()


async def test_the_history_of_a_run_tells_who_claimed_it(server: Server) -> None:
    async with server.visit() as visit:
        run, mine = await visit.new_run(), new_id()
        await visit.insist(lambda: visit.api.claim(run.id, transition_id=mine))
        await visit.propose(run.id, WISH)
        history = await visit.insist(lambda: visit.api.history(run.id))
        assert [state.type for state in history] == [StateType.SCHEDULED, StateType.PENDING, StateType.CANCELLING]
        assert history[1].transition_id == mine


async def test_runs_are_found_by_state(server: Server) -> None:
    async with server.visit() as visit:
        cancelling, running = await visit.in_state(*CANCELLING), await visit.in_state(*RUNNING)
        ours = [cancelling.id, running.id, NOBODY]

        async def found(*states: StateType) -> set[str]:
            return {run.id for run in await visit.insist(lambda: visit.api.runs_of(ours, states=states))}

        assert await found(StateType.CANCELLING) == {cancelling.id}
        assert await found(StateType.CANCELLING, StateType.RUNNING) == {cancelling.id, running.id}
        assert await found(StateType.COMPLETED) == set()


async def test_runs_are_found_among_more_than_one_page(server: Server) -> None:
    async with server.visit() as visit:
        run = await visit.in_state(*CANCELLING)
        many = [new_id() for _ in range(450)] + [run.id]
        found = await visit.insist(lambda: visit.api.runs_of(many, states=[StateType.CANCELLING]))
        assert [each.id for each in found] == [run.id]


# --- flows and deployments ------------------------------------------------------------------------------------


async def test_a_flow_is_made_once(server: Server) -> None:
    async with server.visit() as visit:
        name = f"flow-{new_id()}"
        first = await visit.insist(lambda: visit.api.ensure_flow(name, ["a"]))
        assert await visit.insist(lambda: visit.api.ensure_flow(name, ["a"])) == first
        assert await visit.insist(lambda: visit.api.read_flow(first)) == name
        with pytest.raises(ApiRejected) as caught:
            await visit.insist(lambda: visit.api.ensure_flow("no/slashes"))
        assert caught.value.status == 422 and "body.name" in str(caught.value)


async def test_applying_the_same_deployment_twice_is_one_deployment(server: Server) -> None:
    async with server.visit() as visit:
        wanted = deployment(schedules=(Schedule(cron="0 2 * * *"), Schedule(interval_s=3600)))
        first, second = await visit.deploy(wanted), await visit.deploy(wanted)
        assert first == second
        assert len((await visit.stored(first.id))["schedules"]) == 2
        assert await visit.insist(lambda: visit.api.find_deployment("contract", wanted.name)) == first


async def test_everything_of_a_deployment_arrives_and_leaves_again(server: Server) -> None:
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

        info = await visit.deploy(empty)
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
