"""host_automations.py with a FakePrefect: made once, made anew when the files change, and only this host's deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from runnerd.config.in_force import ConfigInForce
from runnerd.core.problems import Problems
from runnerd.core.settings import Config
from runnerd.deployments.host_automations import HostAutomations
from runnerd.journal.journal import Journal
from tests.kits.engine import an_ambient
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import NOON, Json, LogLines, copied, fake_api, log_to, settings
from tests.unit.deployments.test_triggers import a_trigger

_OF_TRIGGER = ("type", "match", "match_related", "after", "expect", "for_each", "posture", "threshold", "within")


def an_automation(name: str, **more: Json) -> Json:
    trigger = {key: value for key, value in a_trigger(name).items() if key in _OF_TRIGGER}
    return {"name": name, "description": "", "enabled": True, "trigger": trigger, "actions": [{"type": "x"}], **more}


ONE, TWO = an_automation("one"), an_automation("two")


class Life:
    """One life of a daemon with these automations in its files."""

    def __init__(self, prefect: FakePrefect, journal: Journal, name: str) -> None:
        self.prefect, self.name = prefect, name
        self.config = ConfigInForce(Config(settings=settings()))
        self.problems = Problems()
        ambient = an_ambient(LogLines(), now=lambda: NOON, clock=asyncio.get_running_loop().time)
        self.part = HostAutomations(
            api=fake_api(prefect), config=self.config, journal=journal, problems=self.problems, ambient=ambient
        )

    def want(self, *bodies: Json) -> None:
        its = replace(settings(), name=self.name, automations={body["name"]: body for body in bodies})
        self.config.replace(Config(settings=its))

    def made(self) -> list[tuple[str, str]]:
        return sorted((one["name"], one["owner_resource"]) for one in self.prefect.automations.made.values())

    async def until(self, happened: Callable[[], object]) -> None:
        while not happened():
            await asyncio.sleep(0.1)


@asynccontextmanager
async def life(tmp_path: Path, prefect: FakePrefect, *bodies: Json, name: str = "host-1") -> AsyncIterator[Life]:
    journal = Journal(path=str(tmp_path / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    it = Life(prefect, journal, name)
    it.want(*bodies)
    running = asyncio.create_task(it.part.run())
    try:
        yield it
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])
        journal.close()


OURS = "runnerd.host.host-1"


async def test_they_are_made_once_and_follow_the_files(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    prefect.automations.made["7"] = {"name": "foreign", "owner_resource": "runnerd.host.host-2"}
    foreign = ("foreign", "runnerd.host.host-2")
    async with life(tmp_path, prefect, ONE, TWO) as it:
        await it.until(lambda: it.made() == [foreign, ("one", OURS), ("two", OURS)])
        await asyncio.sleep(600)
        assert len([asked for asked in copied(prefect) if asked.startswith("POST")]) == 2
    async with life(tmp_path, prefect, ONE, TWO) as it:
        await asyncio.sleep(600)
        assert copied(prefect) == []
        it.want(TWO)
        await it.until(lambda: it.made() == [foreign, ("two", OURS)])
        it.want()
        await it.until(lambda: it.made() == [foreign])
        copied(prefect)
        it.want()
        await asyncio.sleep(600)
        assert copied(prefect) == []


async def test_a_host_of_another_name_takes_its_own_with_it(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    async with life(tmp_path, prefect, ONE) as it:
        await it.until(it.made)
    async with life(tmp_path, prefect, ONE, name="other") as it:
        await it.until(lambda: it.made() == [("one", "runnerd.host.other")])


async def test_a_lost_answer_makes_no_double(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    prefect.trouble("POST /automations", after=True, times=2, every=2)
    async with life(tmp_path, prefect, ONE, TWO) as it:
        await it.until(lambda: len(it.made()) == 2)
        await asyncio.sleep(600)
        assert it.made() == [("one", OURS), ("two", OURS)]


async def test_what_is_refused_is_a_problem_until_it_is_not(tmp_path: Path) -> None:
    prefect = FakePrefect(major=2)
    prefect.automations.enabled = False
    async with life(tmp_path, prefect, ONE) as it:
        await it.until(it.problems.all)
        assert "the server has no automations" in it.problems.all()[0].message
        prefect.automations.enabled = True
        await it.until(it.made)
        await it.until(lambda: not it.problems.all())


async def test_one_that_is_refused_makes_no_other_anew_by_itself(tmp_path: Path) -> None:
    """Somebody may have paused those, and they count events."""
    prefect, odd = FakePrefect(major=3), an_automation("odd", trigger={"type": "metric"})
    async with life(tmp_path, prefect, odd, ONE) as it:
        await it.until(it.problems.all)
        assert "the API refuses 'odd'" in it.problems.all()[0].message
        (before,) = prefect.automations.made
        await asyncio.sleep(3600)
        assert list(prefect.automations.made) == [before]
        it.want(TWO, ONE)
        await it.until(lambda: not it.problems.all())
        assert it.made() == [("one", OURS), ("two", OURS)]


async def test_without_any_nothing_is_asked(tmp_path: Path) -> None:
    prefect = FakePrefect(major=3)
    async with life(tmp_path, prefect):
        await asyncio.sleep(600)
        assert prefect.asked == []
