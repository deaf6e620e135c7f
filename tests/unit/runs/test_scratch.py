"""What is made for one run alone: what it is called, and how it is seen to go."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from runnerd.core.machine import CLAIM_UNKNOWN, Hook, RunRecord
from runnerd.core.problems import Problems
from runnerd.core.process import LaunchSpec
from runnerd.launch.scratch import scratch_directory, tidy_key, tidy_spec
from runnerd.launch.spec import hooks_spec
from runnerd.processes.link import SpawnerLink
from runnerd.runs.scratch import remove_scratch
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.links import running_link
from tests.kits.nouns import LogLines, a_record, log_to

RUN_ID = "0a1b2c3d-1111-4111-8111-111111111111"
CLAIM = "9f8e7d6c-5b4a-4111-8111-222222222222"
SCRATCH = "/tmp/runnerd-0a1b2c3d-9f8e7d6c5b4a-2"
SAID = f"cannot remove {SCRATCH}: "


def ended(**changes: object) -> RunRecord:
    given = {"transition_id": CLAIM, "attempt": 2, "scratch": SCRATCH, "output": "/o/run.2.log", "user": "etl"}
    return a_record(RUN_ID, **{**given, **changes})


# --- names ------------------------------------------------------------------------------------------------------


def test_a_directory_is_named_by_its_record_alone() -> None:
    assert scratch_directory(ended(scratch=None), tmp="/tmp") == SCRATCH
    others = [ended(attempt=3), ended(transition_id=str(uuid.uuid4())), replace(ended(), id=str(uuid.uuid4()))]
    assert len({SCRATCH, *(scratch_directory(other, tmp="/tmp") for other in others)}) == 4


def test_a_run_whose_claim_went_with_the_journal() -> None:
    assert scratch_directory(ended(transition_id=CLAIM_UNKNOWN), tmp="/t") == "/t/runnerd-0a1b2c3d-0a1b2c3d1111-2"


def test_what_removes_it_is_the_user_s_and_has_no_secrets() -> None:
    spec = tidy_spec(ended())
    assert (spec.key, spec.attempt, spec.user, spec.output) == (f"tidy-{RUN_ID}", 2, "etl", "/o/run.2.log")
    assert spec.argv[-2:] == (f"{SCRATCH}-hooks", SCRATCH)
    assert set(spec.environment) == {"PATH", "LANG"}
    assert (spec.working_directory, spec.make_directory, spec.runtime_max_s) == ("/", False, 600.0)


def test_a_second_chance_leaves_two() -> None:
    before = SCRATCH.removesuffix("2") + "1"
    assert tidy_spec(ended(respawned=True)).argv[-4:] == (f"{before}-hooks", f"{SCRATCH}-hooks", before, SCRATCH)


@pytest.mark.parametrize(("made", "directory"), [(True, f"{SCRATCH}-hooks"), (False, SCRATCH)])
def test_hooks_have_their_own(made: bool, directory: str) -> None:
    flow = LaunchSpec(
        key=RUN_ID,
        attempt=2,
        argv=("python3", "-m", "prefect.engine"),
        environment={},
        working_directory=SCRATCH,
        make_directory=made,
        output="/o/run.2.log",
    )
    hooks = hooks_spec(flow, ended(hook=Hook.ON_CRASHED), program="pass", timeout_s=60.0)
    assert (hooks.working_directory, hooks.make_directory) == (directory, made)


# --- seen to go -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def linked(spawner: FakeSpawner) -> AsyncIterator[SpawnerLink]:
    link = SpawnerLink(
        make_client=spawner.make_client,
        start_spawner=spawner.start_spawner,
        problems=Problems(),
        log=log_to(LogLines()),
    )
    async with running_link(link):
        yield link


async def begun(link: SpawnerLink, spawner: FakeSpawner) -> asyncio.Task[str | None]:
    """Tidying up that is under way."""
    tidying = asyncio.create_task(remove_scratch(ended(), link=link, spec=tidy_spec(ended())))
    async with asyncio.timeout(60):
        while tidy_key(RUN_ID) not in spawner.live() and not tidying.done():
            await asyncio.sleep(0.01)
    return tidying


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"code": 0}, None),
        ({"code": 1}, f"{SAID}exited 1; see `runnerctl logs {RUN_ID}`"),
        ({"signal": 9}, f"{SAID}killed by SIGKILL; see `runnerctl logs {RUN_ID}`"),
    ],
)
async def test_how_it_went(how: dict[str, int], words: str | None) -> None:
    spawner = FakeSpawner()
    async with linked(spawner) as link:
        tidying = await begun(link, spawner)
        spawner.exit(tidy_key(RUN_ID), **how)
        assert await tidying == words
        assert spawner.records == {}


async def test_it_has_a_time_limit() -> None:
    spawner = FakeSpawner()
    async with linked(spawner) as link:
        words = await (await begun(link, spawner))
        assert words == f"{SAID}it took longer than 10min; see `runnerctl logs {RUN_ID}`"
        assert spawner.records == {}


@pytest.mark.parametrize("trouble", ["refuses", "start_error"])
async def test_it_cannot_be_started(trouble: str) -> None:
    spawner = FakeSpawner()
    setattr(spawner, trouble, "no more processes")
    async with linked(spawner) as link:
        words = await (await begun(link, spawner))
        assert words is not None
        assert words.startswith(SAID)
        assert "no more processes" in words
        assert spawner.records == {}


async def test_a_successor_waits_for_what_was_begun() -> None:
    spawner = FakeSpawner()
    async with linked(spawner) as link:
        tidying = await begun(link, spawner)
        tidying.cancel()
        await asyncio.wait([tidying])
    async with linked(spawner) as link:
        tidying = await begun(link, spawner)
        spawner.exit(tidy_key(RUN_ID))
        assert await tidying is None
        assert len(spawner.runs_of(tidy_key(RUN_ID))) == 1


async def test_a_spawner_that_knows_nothing_of_it_any_more() -> None:
    spawner = FakeSpawner()
    async with linked(spawner) as link:
        tidying = await begun(link, spawner)
        spawner.forget_all()
        spawner.lose()
        assert await tidying == f"{SAID}the spawner was lost"
