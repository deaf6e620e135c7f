"""The contract about flow runs: which are due, how they are made and how they are found."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from runnerd.core.prefect import FlowRun, StateType, Verdict
from runnerd.core.settings import Schedule
from runnerd.prefect_api.answers import ApiRefusal
from tests.kits.contract import (
    CANCELLING,
    NOBODY,
    RUNNING,
    WISH,
    Server,
    due,
    new_id,
    text,
)

# --- what is due ----------------------------------------------------------------------------------------------


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
        assert first.created is not None and first.created <= first.next_scheduled_start_time + timedelta(minutes=1)


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


async def test_a_retry_is_kept_for_its_process_until_it_is_released(server: Server) -> None:
    for version in ("2.20.18", "3.1.15"):
        server.skip_before(version, "a run does not tell that it waits for a retry of its own process")
    async with server.visit() as visit:
        run = await visit.in_state("RUNNING")
        await visit.raw("PATCH", f"/flow_runs/{run.id}", {"empirical_policy": {"retries": 1, "retry_delay": 600}})
        assert not (await visit.propose(run.id, Verdict(type=StateType.FAILED))).accepted
        waiting = await visit.insist(lambda: visit.api.read_run(run.id))
        assert waiting is not None and waiting.state.needs_process
        await visit.insist(lambda: visit.api.release_retry(waiting))
        released = await visit.insist(lambda: visit.api.read_run(run.id))
        assert released is not None and released.policy.get("retries") == 1
        assert released.state.type is StateType.SCHEDULED and not released.state.needs_process


async def test_a_pause_needs_the_process_and_a_suspension_does_not(server: Server) -> None:
    async with server.visit() as visit:
        for reschedule in (False, True):
            run = await visit.in_state("RUNNING")
            details = {"pause_timeout": text(1), "pause_reschedule": reschedule}
            state = {"state": {"type": "PAUSED", "state_details": details}}
            await visit.raw("POST", f"/flow_runs/{run.id}/set_state", state)
            found = await visit.insist(lambda: visit.api.read_run(run.id))  # noqa: B023
            assert found is not None and found.state.type is StateType.PAUSED
            assert found.state.needs_process is not reschedule
