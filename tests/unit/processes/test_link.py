"""link.py: requests wait through a lost connection and are repeated, and what is known is what was last said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.core.problems import Problems
from runnerd.core.process import LaunchSpec
from runnerd.processes.client import SpawnerClient
from runnerd.processes.link import OnLost, OnRecord, SpawnerLink
from runnerd.processes.protocol import Record
from tests.kits.fakes.fake_spawner import FakeClient, FakeSpawner
from tests.kits.links import running_link
from tests.kits.nouns import LogLines, log_to

LOST, BACK = "the connection to the spawner is lost; its runs go on", "connected to the spawner again"


def spec(key: str = "r-1", attempt: int = 1) -> LaunchSpec:
    return LaunchSpec(
        key=key, attempt=attempt, argv=("true",), environment={}, working_directory="/", output=f"/o/{key}"
    )


@asynccontextmanager
async def linked(spawner: FakeSpawner, lines: LogLines | None = None) -> AsyncIterator[SpawnerLink]:
    link = SpawnerLink(
        make_client=spawner.make_client,
        start_spawner=spawner.start_spawner,
        problems=Problems(),
        log=log_to(lines or LogLines()),
    )
    async with running_link(link):
        yield link


async def test_what_is_known_is_what_was_last_said() -> None:
    spawner = FakeSpawner()
    async with linked(spawner) as link:
        started = await link.spawn(spec())
        assert link.record("r-1", 1) == started
        assert link.record("r-1", 2) is None
        woken = asyncio.Event()
        link.add_listener("r-1", woken.set)
        spawner.exit("r-1", code=3)
        await woken.wait()
        (record,) = link.records()
        assert (record.phase, record.exit and record.exit.code) == ("exited", 3)
        link.remove_listener("r-1")
        link.remove_listener("r-1")
        await link.forget("r-1", 1)
        assert (link.records(), spawner.records) == ([], {})


async def test_what_the_spawner_says_of_itself_is_known_while_connected() -> None:
    spawner = FakeSpawner()
    async with linked(spawner) as link:
        assert link.hello == spawner.hello
        spawner.hello = replace(spawner.hello, version="older", limits={})
        spawner.down = True
        spawner.lose()
        await asyncio.sleep(0.01)
        assert link.hello is None
        spawner.down = False
        await asyncio.sleep(10)
        assert link.hello == spawner.hello
    assert link.hello is None


async def test_every_listener_is_woken_by_a_reconnection() -> None:
    spawner, lines = FakeSpawner(), LogLines()
    async with linked(spawner, lines) as link:
        await link.spawn(spec())
        woken: list[str] = []
        link.add_listener("r-1", lambda: woken.append("r-1"))
        link.add_listener("r-2", lambda: woken.append("r-2"))
        await asyncio.sleep(1)
        woken.clear()
        spawner.lose()
        spawner.forget_all()
        await asyncio.sleep(1)
        assert (woken, link.record("r-1", 1), link.connected) == (["r-1", "r-2"], None, True)
        assert lines.events("warning", "info") == [LOST, BACK]


async def test_requests_wait_for_the_spawner_to_come_back() -> None:
    spawner, lines = FakeSpawner(), LogLines()
    async with linked(spawner, lines) as link:
        spawner.down = True
        spawner.lose()
        await asyncio.sleep(1)
        asked = [asyncio.create_task(link.spawn(spec(f"r-{number}"))) for number in range(3)]
        await asyncio.sleep(3600)
        assert not [each for each in asked if each.done()]
        assert (link.connected, link.problem) == (False, "cannot start the spawner: it is down")
        assert lines.events("error") == ["cannot reach the spawner"], "said once"
        spawner.down = False
        assert [(await each).key for each in asked] == ["r-0", "r-1", "r-2"]
        assert link.problem is None
        assert lines.events("info") == [BACK]


async def test_the_log_says_nothing_of_a_first_connection_and_of_each_later_one() -> None:
    spawner, lines = FakeSpawner(), LogLines()
    async with linked(spawner, lines) as link:
        assert lines.events("info") == []
        for _ in range(2):
            spawner.lose()
            await asyncio.sleep(1)
            await link.wait_until_connected()
    assert lines.events("warning", "info") == [LOST, BACK] * 2


@pytest.mark.parametrize("moment", range(6))
async def test_a_connection_that_breaks_in_the_middle_starts_nothing_twice(moment: int) -> None:
    spawner = FakeSpawner()
    async with linked(spawner) as link:
        asked = asyncio.create_task(link.spawn(spec()))
        for _ in range(moment):
            await asyncio.sleep(0)
        spawner.lose()
        assert (await asked).phase == "running"
        assert len(spawner.started) == 1
        await link.stop("r-1", 1, reason="cancel")
        assert spawner.live() == []


async def test_a_refusal_is_the_caller_s() -> None:
    spawner = FakeSpawner()
    spawner.refuses = "cannot start run r-1: bad argv"
    async with linked(spawner) as link:
        with pytest.raises(SpawnerError, match="bad argv"):
            await link.spawn(spec())
        assert link.connected


async def test_what_still_runs_is_not_forgotten_by_the_spawner() -> None:
    spawner, lines = FakeSpawner(), LogLines()
    async with linked(spawner, lines) as link:
        await link.spawn(spec())
        await link.forget("r-1", 1)
        assert spawner.live() == ["r-1"]
        assert lines.events("warning") == ["cannot drop a record of the spawner"]
        await link.forget("r-1", 7)


async def test_an_exit_that_overtakes_the_reply_is_not_unlearnt() -> None:
    spawner = FakeSpawner()
    async with linked(spawner) as link:
        asked = asyncio.create_task(link.spawn(spec()))
        while not spawner.started:
            await asyncio.sleep(0)
        spawner.exit("r-1", code=0)
        await asyncio.sleep(1)
        assert (await asked).phase in ("running", "exited")
        known = link.record("r-1", 1)
        assert known is not None
        assert known.phase == "exited"


class TurnedAway(FakeSpawner):
    """Serves somebody else; a spawner that is started beside it would serve nobody."""

    turned_away = True
    starts = 0

    def admit(self, client: object) -> list[object]:  # type: ignore[override]
        if self.turned_away:
            raise SpawnerError("cannot use the spawner: uid 1000 may not speak to this spawner", refused=True)
        return super().admit(client)  # type: ignore[arg-type, return-value]

    async def start(self) -> None:
        self.starts += 1


async def test_turned_away_it_starts_none_of_its_own() -> None:
    spawner = TurnedAway()
    link = SpawnerLink(
        make_client=spawner.make_client,
        start_spawner=spawner.start_spawner,
        problems=Problems(),
        log=log_to(LogLines()),
    )
    keeping = asyncio.create_task(link.run())
    await asyncio.sleep(60)
    assert (spawner.starts, link.connected) == (0, False)
    assert "may not speak" in (link.problem or "")
    spawner.turned_away = False
    await link.wait_until_connected()
    keeping.cancel()
    await asyncio.wait([keeping])
    await link.close()
    assert not link.connected


class LoggedClient(FakeClient):
    """Notes in `asked` what it is asked, and when `retire` was answered."""

    def __init__(self, spawner: FakeSpawner, on_record: OnRecord, on_lost: OnLost, *, asked: list[str]) -> None:
        super().__init__(spawner, on_record, on_lost)
        self._asked = asked

    async def spawn(self, spec: LaunchSpec) -> Record:
        self._asked.append("spawn")
        return await super().spawn(spec)

    async def retire(self) -> bool:
        self._asked.append("retire")
        try:
            return await super().retire()
        finally:
            self._asked.append("retired")


@pytest.mark.parametrize("first", ["retire", "spawn"])
async def test_a_spawner_is_not_asked_for_a_run_and_to_end_at_once(first: str) -> None:
    """One of older code may do both, and the run's exit status is lost."""
    spawner, asked = FakeSpawner(), list[str]()

    def make_client(on_record: OnRecord, on_lost: OnLost) -> SpawnerClient:
        return cast(SpawnerClient, LoggedClient(spawner, on_record, on_lost, asked=asked))

    link = SpawnerLink(
        make_client=make_client, start_spawner=spawner.start_spawner, problems=Problems(), log=log_to(LogLines())
    )
    async with running_link(link):
        if first == "retire":
            retired, record = await asyncio.gather(link.retire(), link.spawn(spec()))
            assert asked[:3] == ["retire", "retired", "spawn"]
        else:
            record, retired = await asyncio.gather(link.spawn(spec()), link.retire())
            assert asked == ["spawn"]
        assert (retired, spawner.retired) == (first == "retire", int(first == "retire"))
        assert (record.phase, len(spawner.started)) == ("running", 1)
        spawner.exit("r-1", code=0)
        assert await link.retire(), "nothing is asked for any more"
