"""stop_pauses.py with a FakePrefect: what a stop has paused, the next start resumes, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.backoff import Backoff
from runnerd.core.settings import Deployment
from runnerd.core.wakes import Wakes
from runnerd.deployments.stop_pauses import PAUSE_LIMIT_S, StopPauses
from tests.kits.engine import an_ambient
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import NOON, LogLines, a_deployment, copied
from tests.kits.registrar import BROKEN, FakeInspector, Host, a_host, flow

A, B = a_deployment("a"), a_deployment("b")


class Life:
    """One life of a daemon, which has registered these deployments."""

    def __init__(self, host: Host) -> None:
        self.host, self.lines = host, LogLines()
        clock = asyncio.get_running_loop().time
        self.pauses = StopPauses(
            api=host.api,
            journal=host.journal,
            registry=host.registry,
            settled=host.registrar.settled,
            wakes=Wakes(),
            ambient=replace(
                an_ambient(self.lines, now=lambda: NOON, clock=clock),
                backoff=lambda: Backoff(first_s=1.0, cap_s=30.0, uniform=lambda: 1.0),
            ),
        )

    def paused(self) -> dict[str, object]:
        return {str(one["name"]): one["paused"] for one in self.host.prefect.deployments.values()}

    def toggle(self, name: str, *, paused: bool) -> None:
        """As somebody does in Prefect."""
        self.host.stored(name)["paused"] = paused


@pytest.fixture
def prefect() -> FakePrefect:
    return FakePrefect(major=3)


@asynccontextmanager
async def life(
    tmp_path: Path, prefect: FakePrefect, *deployments: Deployment, inspector: FakeInspector | None = None
) -> AsyncIterator[Life]:
    async with a_host(tmp_path, prefect, inspector or FakeInspector()) as host:
        await host.want(*(deployments or (A, B)))
        yield Life(host)


async def test_a_stop_pauses_and_the_next_start_resumes(tmp_path: Path, prefect: FakePrefect) -> None:
    async with life(tmp_path, prefect) as one:
        await one.pauses.pause()
        assert one.paused() == {"a": True, "b": True}
    async with life(tmp_path, prefect) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": False, "b": False}
        assert not one.host.entry(A).paused
        copied(prefect)
        await one.pauses.resume()
        assert copied(prefect) == [], "nothing is known of it any more"


@pytest.mark.parametrize(("host", "said", "paused"), [(False, True, True), (True, False, False), (True, None, True)])
async def test_a_deployment_may_say_for_itself_whether_a_stop_pauses_it(
    tmp_path: Path, prefect: FakePrefect, host: bool, said: bool | None, paused: bool
) -> None:
    async with life(tmp_path, prefect, replace(A, pause_on_shutdown=said), B) as one:
        await one.pauses.pause(unsaid=host)
        assert one.paused() == {"a": paused, "b": host}
    async with life(tmp_path, prefect, replace(A, pause_on_shutdown=said), B) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": False, "b": False}


async def test_what_somebody_had_paused_stays_so(tmp_path: Path, prefect: FakePrefect) -> None:
    async with life(tmp_path, prefect) as one:
        one.toggle("a", paused=True)
        await one.pauses.pause()
    async with life(tmp_path, prefect) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": True, "b": False}


async def test_what_somebody_resumed_meanwhile_is_left(tmp_path: Path, prefect: FakePrefect) -> None:
    async with life(tmp_path, prefect) as one:
        await one.pauses.pause()
        one.toggle("a", paused=False)
    async with life(tmp_path, prefect) as one:
        copied(prefect)
        await one.pauses.resume()
        changes = [asked for asked in copied(prefect) if asked.startswith("PATCH")]
        assert len(changes) == 1
        one.toggle("a", paused=True)  # after the start: nobody undoes it at the next one
    async with life(tmp_path, prefect) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": True, "b": False}


async def test_a_file_that_pauses_it_now_has_its_way(tmp_path: Path, prefect: FakePrefect) -> None:
    async with life(tmp_path, prefect) as one:
        await one.pauses.pause()
    async with life(tmp_path, prefect, replace(A, paused=True), B) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": True, "b": False}


async def test_what_has_left_the_files_stays_paused(tmp_path: Path, prefect: FakePrefect) -> None:
    async with life(tmp_path, prefect) as one:
        await one.pauses.pause()
    async with life(tmp_path, prefect, B) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": True, "b": False}
    async with life(tmp_path, prefect) as one:
        assert one.paused() == {"a": False, "b": False}, "registering resumes what was dropped, as always"


async def test_a_declaration_that_has_changed_is_resumed_once_it_is_registered(
    tmp_path: Path, prefect: FakePrefect
) -> None:
    async with life(tmp_path, prefect) as one:
        await one.pauses.pause()
    moved = a_deployment("a", entrypoint="moved.py:flow")
    inspector = FakeInspector()
    async with a_host(tmp_path, prefect, inspector) as host:
        one = Life(host)
        resuming = asyncio.create_task(one.pauses.resume())
        await asyncio.sleep(0)
        await host.want(moved, B)
        await resuming
        assert one.paused() == {"a": False, "b": False}


async def test_one_that_cannot_be_registered_at_the_start_is_resumed_when_it_is(
    tmp_path: Path, prefect: FakePrefect
) -> None:
    """Its file was changed while the host was down, and its code fails: a disk that is not mounted yet, say."""
    async with life(tmp_path, prefect) as one:
        await one.pauses.pause()
    moved = a_deployment("a", entrypoint="moved.py:flow")
    inspector = FakeInspector(answers={moved.entrypoint: BROKEN})
    async with a_host(tmp_path, prefect, inspector) as host:
        one = Life(host)
        await host.want(moved, B)
        resuming = asyncio.create_task(one.pauses.resume())
        await asyncio.sleep(60)
        assert (host.entry(moved).deployment_id, one.paused()) == (None, {"a": True, "b": False})
        inspector.change(moved.entrypoint, flow("etl"))
        await resuming
        assert one.paused() == {"a": False, "b": False}


async def test_deployments_in_pools_are_left(tmp_path: Path, prefect: FakePrefect) -> None:
    prefect.pools.create_pool("etl")
    async with life(tmp_path, prefect, A, replace(B, work_pool="etl")) as one:
        await one.pauses.pause()
        assert one.paused() == {"a": True, "b": False}


async def test_an_api_that_is_away_at_the_stop_is_told_and_holds_nothing_up(
    tmp_path: Path, prefect: FakePrefect
) -> None:
    async with life(tmp_path, prefect) as one:
        prefect.down = True
        began = asyncio.get_running_loop().time()
        await one.pauses.pause()
        assert asyncio.get_running_loop().time() - began <= PAUSE_LIMIT_S
        assert len(one.lines.events("warning")) == 1
        prefect.down = False
        one.toggle("a", paused=True)
    async with life(tmp_path, prefect) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": True, "b": False}, "the stop had paused nothing"


async def test_an_api_that_is_mute_at_the_stop_holds_nothing_up(tmp_path: Path, prefect: FakePrefect) -> None:
    async with life(tmp_path, prefect) as one:
        prefect.mute = True
        await one.pauses.pause()
        (line,) = one.lines.all()
        assert line["why"] == "Prefect has not answered within 10 s"
        prefect.mute = False


@pytest.mark.parametrize("after", [False, True], ids=["not arrived", "arrived"])
async def test_an_answer_that_is_lost_is_looked_at_by_the_next_start(
    tmp_path: Path, prefect: FakePrefect, after: bool
) -> None:
    async with life(tmp_path, prefect, A) as one:
        prefect.trouble("PATCH /deployments", after=after)
        await one.pauses.pause()
        assert one.paused() == {"a": after}
    async with life(tmp_path, prefect, A) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": False}


async def test_a_daemon_that_is_killed_between_journal_and_request(tmp_path: Path, prefect: FakePrefect) -> None:
    async with life(tmp_path, prefect, A) as one:
        prefect.mute = True
        prefect.mute = False
        killed = asyncio.create_task(one.pauses.pause())
        while not any("filter" in asked for asked in prefect.asked):
            await asyncio.sleep(0)
        killed.cancel()
        await asyncio.wait([killed])
    async with life(tmp_path, prefect, A) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": False}


async def test_a_busy_server_is_asked_again(tmp_path: Path, prefect: FakePrefect) -> None:
    async with life(tmp_path, prefect) as one:
        prefect.trouble("PATCH /deployments", status=503, times=3)
        await one.pauses.pause()
        assert one.paused() == {"a": True, "b": True}
        assert one.lines.events("warning") == []


async def test_a_start_waits_for_the_api(tmp_path: Path, prefect: FakePrefect) -> None:
    inspector = FakeInspector()
    async with life(tmp_path, prefect, inspector=inspector) as one:
        await one.pauses.pause()
        prefect.down = True
    async with life(tmp_path, prefect, inspector=inspector) as one:
        resuming = asyncio.create_task(one.pauses.resume())
        await asyncio.sleep(300)
        assert not resuming.done()
        prefect.down = False
        await resuming
        assert one.paused() == {"a": False, "b": False}


async def test_a_start_that_still_resumes_undoes_no_stop(tmp_path: Path, prefect: FakePrefect) -> None:
    inspector = FakeInspector()
    async with life(tmp_path, prefect, inspector=inspector) as one:
        await one.pauses.pause()
        prefect.down = True
    async with life(tmp_path, prefect, inspector=inspector) as one:
        resuming = asyncio.create_task(one.pauses.resume())
        await asyncio.sleep(10)
        prefect.down = False
        await one.pauses.pause()
        await resuming
        assert one.paused() == {"a": True, "b": True}
    async with life(tmp_path, prefect, inspector=inspector) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": False, "b": False}


async def test_what_a_start_never_resumed_the_one_after_it_does(tmp_path: Path, prefect: FakePrefect) -> None:
    async with life(tmp_path, prefect, A, B) as one:
        await one.pauses.pause()
    async with life(tmp_path, prefect, A, B) as one:
        one.toggle("b", paused=False)
        await one.pauses.pause()  # before this life has resumed anything
    async with life(tmp_path, prefect, A, B) as one:
        await one.pauses.resume()
        assert one.paused() == {"a": False, "b": False}
