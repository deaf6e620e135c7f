"""Notices of the ends of runs: each end that the API has, once, of the host and of the deployment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.machine import Intent
from runnerd.core.notices import Notice, NoticeTarget
from runnerd.core.prefect import StateType
from tests.kits.engine import Engine, fake_engine, resume, start
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import a_record

EVENTS = ("on_failure", "on_crash", "on_cancel", "on_success", "on_late")
OF_HOST = {event: (NoticeTarget(post="http://host.test/"),) for event in EVENTS}
OF_DEPLOYMENT = {event: (NoticeTarget(command=("/bin/page",)), NoticeTarget(post="http://d.test/")) for event in EVENTS}


def made(engine: Engine) -> list[tuple[str, str]]:
    return [(one.event.value, one.target.shown) for one in engine.journal.notices.pending()]


def events(engine: Engine) -> list[str]:
    return [one.event.value for one in engine.journal.notices.pending()]


async def end(engine: Engine, spawner: FakeSpawner, state: str | None, **exit: int) -> Notice | None:
    run_id = await start(engine)
    if state is not None:
        engine.prefect.set_state(run_id, state)
    spawner.exit(run_id, **exit)
    await engine.until_done(run_id)
    return next((one for one in engine.journal.notices.pending() if one.run_id == run_id), None)


@pytest.mark.parametrize(("state", "event", "exit"), [
    ("COMPLETED", "on_success", {"code": 0}),
    ("FAILED", "on_failure", {"code": 0}),
    (None, "on_crash", {"code": 1}),
    ("CANCELLED", "on_cancel", {"code": 0}),
])  # fmt: skip
async def test_each_end_is_notified_as_the_api_has_it(
    tmp_path: Path, state: str | None, event: str, exit: dict[str, int]
) -> None:
    async with fake_engine(tmp_path, notices=OF_HOST) as (engine, spawner):
        notice = await end(engine, spawner, state, **exit)
        assert notice is not None and notice.event.value == event
        assert notice.document["words"] == notice.document["exit"]["words"]
        assert (notice.document["event"], notice.document["host"]) == (event, "host-1")
        assert notice.document["api_state"] == (state or "CRASHED")
        assert events(engine) == [event]


async def test_a_flow_that_failed_says_why(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, notices=OF_HOST) as (engine, spawner):
        run_id = await start(engine)
        engine.prefect.set_state(
            run_id, "FAILED", message="Flow run encountered an exception:\nValueError: no such region"
        )
        spawner.exit(run_id, code=0)
        record = await engine.until_done(run_id)
        (notice,) = engine.journal.notices.pending()
        said = "Flow run encountered an exception: ValueError: no such region"
        assert (notice.document["words"], notice.document["api_state_message"]) == (said, said)
        assert record.words == notice.document["exit"]["words"] == "exited 0"


async def test_what_is_no_end_is_not_notified(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, notices=OF_HOST, then="reschedule") as (engine, _):
        run_id = await start(engine)
        engine.supervisor.evict_all()
        await engine.until_done(run_id)
        assert engine.prefect.state_of(run_id) == "SCHEDULED"
        assert events(engine) == []


async def test_the_host_s_come_first_and_the_deployment_s_are_added(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, notices={"on_crash": OF_HOST["on_crash"]}) as (engine, spawner):
        run_id = await start(engine, engine.deploy(notices=OF_DEPLOYMENT))
        spawner.exit(run_id, code=1)
        await engine.until_done(run_id)
        assert sorted(made(engine)) == [
            ("on_crash", "POST to http://d.test"),
            ("on_crash", "POST to http://host.test"),
            ("on_crash", "command /bin/page"),
        ]


async def test_a_run_that_could_not_start_and_one_that_was_cancelled_before(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, notices=OF_HOST) as (engine, spawner):
        spawner.start_error = "no such file"
        run_id = engine.add_run(engine.deploy())
        engine.offer(run_id)
        await engine.until_done(run_id)
        assert events(engine) == ["on_crash"]
        (notice,) = engine.journal.notices.pending()
        assert notice.document["words"] == "could not start: no such file"


async def test_the_end_and_its_notices_are_written_together(tmp_path: Path) -> None:
    """A daemon that dies right afterwards has both on disk; one that dies before has neither, and makes both later."""
    spawner, prefect = FakeSpawner(), FakePrefect(major=3)
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner, notices=OF_HOST) as (engine, _):
        run_id = await start(engine)
        prefect.trouble("set_state", after=True, times=1000)
        spawner.exit(run_id, code=1)
        await engine.until(lambda: prefect.state_of(run_id) == "CRASHED")
        assert events(engine) == []
        known = engine.registry.entries()
    prefect.troubles.clear()
    async with fake_engine(tmp_path, prefect=prefect, spawner=spawner, notices=OF_HOST) as (engine, _):
        resume(engine, known)
        await engine.until_done(run_id)
        assert events(engine) == ["on_crash"]


async def test_a_second_end_of_a_run_is_another_end(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, notices=OF_HOST) as (engine, _):
        maker = engine.notices.maker
        first = a_record("r-1", api_state=StateType.FAILED, attempt=1)
        second = a_record("r-1", api_state=StateType.FAILED, attempt=2, transition_id="t-2")
        (one,), (same,), (other,) = maker.of_end(first), maker.of_end(first), maker.of_end(second)
        assert one.id == same.id != other.id


async def test_what_only_a_receipt_says_waits_for_the_api(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, notices=OF_HOST) as (engine, _):
        record = a_record(api_state=StateType.COMPLETED, unread=True)
        assert engine.notices.maker.of_end(record) == ()


async def test_the_user_of_a_command_is_that_of_the_deployment_and_else_of_the_run(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, notices=OF_HOST) as (engine, _):
        maker, of_run = engine.notices.maker, {"user": "etl", "intent": Intent.CANCEL}
        deployment_id = engine.deploy(run={"user": "other", "memory_max_bytes": 5})
        (known,) = maker.of_end(a_record(api_state=StateType.CANCELLED, deployment_id=deployment_id, **of_run))
        (unknown,) = maker.of_end(a_record(api_state=StateType.CANCELLED, deployment_id="gone", **of_run))
        (pool,) = maker.of_end(a_record(api_state=StateType.CANCELLED, deployment_id="gone", pool="p", **of_run))
        assert (maker.settings(known).user, maker.settings(known).memory_max_bytes) == ("other", 5)
        assert (maker.settings(unknown).user, maker.settings(unknown).working_directory) == ("etl", "/")
        assert (maker.settings(pool).user, maker.settings(pool).working_directory) == ("etl", "/")


async def test_nothing_that_goes_wrong_in_a_notice_holds_up_a_run(tmp_path: Path) -> None:
    async with fake_engine(tmp_path, notices={"on_crash": (None,)}) as (engine, spawner):  # what no reader makes
        run_id = await start(engine)
        spawner.exit(run_id, code=1)
        assert (await engine.until_done(run_id)).api_state is StateType.CRASHED


async def test_whom_a_notice_is_for_by_the_files_as_they_are_now(tmp_path: Path) -> None:
    a, b, c = (NoticeTarget(post=f"http://{name}.test/") for name in "abc")
    async with fake_engine(tmp_path, notices={"on_crash": (a, b)}) as (engine, spawner):
        run_id = await start(engine, engine.deploy(notices={"on_crash": (c,)}))
        spawner.exit(run_id, code=1)
        await engine.until_done(run_id)
        by_target = {one.target: one for one in engine.journal.notices.pending()}
        in_force = engine.notices.maker.target_in_force
        assert [in_force(by_target[one]) for one in (a, b, c)] == [a, b, c]

        settings = engine.config.settings()
        engine.config.replace(replace(engine.config.current, settings=replace(settings, notices={"on_crash": (b,)})))
        assert [in_force(by_target[one]) for one in (a, b, c)] == [b, b, c], "b is what now stands where a was"
        engine.config.replace(replace(engine.config.current, settings=replace(settings, notices={})))
        assert [in_force(by_target[one]) for one in (a, b, c)] == [None, None, c]
        assert in_force(replace(by_target[c], deployment_id="not registered yet")) == c
        assert in_force(replace(by_target[a], place="")) == a
