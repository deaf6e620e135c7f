"""outbox.py: an outage loses nothing, and what the API never accepts holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from runnerd.core.errors import ApiAway, ApiRejected
from runnerd.pools.outbox import Outbox
from tests.kits.engine import an_ambient
from tests.kits.nouns import NOON, LogLines


@pytest.mark.parametrize("events", [1, 100])
async def test_a_kind_that_is_to_come_later_for_ever_holds_up_no_other_kind(events: int) -> None:
    loop, lines = asyncio.get_running_loop(), LogLines()
    ambient = an_ambient(lines, now=lambda: NOON, clock=loop.time)
    outbox, asked, sent = Outbox(ambient=ambient), 0, asyncio.Event()

    async def fail() -> None:
        nonlocal asked
        asked += 1
        raise ApiAway("no", answered=True, later=True)

    async def send() -> None:
        sent.set()

    for _ in range(events):
        outbox.put("events", "an event", fail)
    outbox.put("notes", "a note", send)
    task = asyncio.create_task(outbox.run())
    try:
        await asyncio.wait_for(sent.wait(), 60)
        for _ in range(10):
            sent.clear()
            outbox.put("events", "an event", fail)
            outbox.put("notes", "a note", send)
            await asyncio.wait_for(sent.wait(), 60)
        assert len(lines.events("warning")) == 1
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_what_is_not_wanted_before_a_time_holds_up_no_other_kind() -> None:
    loop, lines = asyncio.get_running_loop(), LogLines()
    outbox = Outbox(ambient=an_ambient(lines, now=lambda: NOON, clock=loop.time))
    asked: list[float] = []
    sent: list[str] = []
    began = loop.time()

    async def refused() -> None:
        asked.append(loop.time() - began)
        if len(asked) < 3:
            raise ApiAway("no", answered=True, later=True, retry_after_s=100.0)
        sent.append("the event")

    def put(kind: str, what: str) -> None:
        async def send() -> None:
            sent.append(what)

        outbox.put(kind, what, send)

    outbox.put("events", "an event", refused)
    put("events", "the event after it")
    put("notes", "a note")
    task = asyncio.create_task(outbox.run())
    try:
        await asyncio.sleep(1)
        assert sent == ["a note"]
        put("notes", "a second note")
        await asyncio.sleep(1)
        assert sent == ["a note", "a second note"] and len(asked) == 1
        await asyncio.sleep(300)
        assert sent == ["a note", "a second note", "the event", "the event after it"]
        assert asked[1] >= 100 and asked[2] >= asked[1] + 100
    finally:
        task.cancel()
        await asyncio.wait({task})


@dataclass
class Posting:
    """An outbox whose requests wait for an outage, and what the API has accepted of them."""

    outbox: Outbox
    lines: LogLines
    outage: bool = False
    accepted: list[str] = field(default_factory=list)

    def put(self, kind: str, what: str) -> None:
        async def send() -> None:
            if self.outage:
                raise ApiAway("no", answered=True, later=True)
            self.accepted.append(what)

        self.outbox.put(kind, what, send)

    def put_failing(self, kind: str, error: Exception) -> None:
        async def send() -> None:
            raise error

        self.outbox.put(kind, f"what fails of {kind}", send)


@asynccontextmanager
async def posting() -> AsyncIterator[Posting]:
    loop, lines = asyncio.get_running_loop(), LogLines()
    one = Posting(Outbox(ambient=an_ambient(lines, now=lambda: NOON, clock=loop.time)), lines)
    task = asyncio.create_task(one.outbox.run())
    try:
        yield one
        assert not task.done(), "it has ended, and the daemon with it"
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize("labels", [0, 3])
async def test_an_outage_loses_nothing_of_a_kind_of_which_one_was_dropped(labels: int) -> None:
    async with posting() as one:
        one.put_failing("places", ApiAway("no", answered=True, later=True))
        one.put("labels", "the first label")
        await asyncio.sleep(1200)
        assert one.accepted == ["the first label"]
        one.outage = True
        meanwhile = [("places", f"place {number}") for number in range(5)]
        meanwhile += [("labels", f"label {number}") for number in range(labels)]
        for kind, what in meanwhile:
            one.put(kind, what)
        await asyncio.sleep(3600)
        one.outage = False
        await asyncio.sleep(600)
        assert one.accepted[1:] == [what for _, what in meanwhile]
        assert one.lines.events("warning") == ["cannot send what fails of places; dropping it"]


@pytest.mark.parametrize("error", [ApiRejected("no", status=404), ValueError("no")])
async def test_another_that_is_not_accepted_does_not_end_an_outage(error: Exception) -> None:
    async with posting() as one:
        one.outage = True
        one.put("places", "a place")
        one.put_failing("labels", error)
        await asyncio.sleep(3600)
        one.outage = False
        await asyncio.sleep(600)
        assert one.accepted == ["a place"]
        assert one.lines.events("warning") == []
