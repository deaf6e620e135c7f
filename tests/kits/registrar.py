"""A registrar around a FakePrefect, and an inspector that answers from a table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from runnerd.core.backoff import Backoff
from runnerd.core.place import Problem
from runnerd.core.prefect import Inspection
from runnerd.core.problems import Problems
from runnerd.core.settings import Config, Deployment, key_of
from runnerd.core.wakes import Wakes
from runnerd.deployments.inspection import InspectionFailure
from runnerd.deployments.inspector import InspectionResult
from runnerd.deployments.planning import ConfigChanges
from runnerd.deployments.rechecking import Rechecker
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import Entry, Key, Registry
from runnerd.journal.journal import Journal
from runnerd.prefect_api.client import PrefectApi
from tests.kits.engine import an_ambient
from tests.kits.engine_parts import NotedEvent
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import NOON, URL, Json, LogLines, fake_api, log_to, settings


@dataclass
class FakeInspector:
    """Answers by entrypoint, or by key where one has an answer of its own; remembers what it once answered well."""

    answers: dict[str, InspectionResult] = field(default_factory=dict)
    known: dict[Key, Inspection] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    of_key: dict[Key, InspectionResult] = field(default_factory=dict)
    alone: dict[str, InspectionResult] = field(default_factory=dict)  # of those that `answers` calls slow
    odd: str | None = None  # the deployment that cannot be compared
    release: asyncio.Event = field(default_factory=asyncio.Event)  # until then, those hang

    async def cached(self, deployments: Iterable[Deployment]) -> dict[Key, Inspection]:
        return {key_of(one): self.known[key_of(one)] for one in deployments if key_of(one) in self.known}

    async def inspect(
        self,
        deployments: Sequence[Deployment],
        *,
        afresh: Collection[Key] = (),
        on_found: Callable[[Mapping[Key, InspectionResult]], None] = lambda found: None,
    ) -> dict[Key, InspectionResult]:
        await asyncio.sleep(0)
        others = [one for one in deployments if key_of(one) not in afresh]
        found: dict[Key, InspectionResult] = dict(await self.cached(others))
        for one in deployments:
            if key_of(one) not in found:
                self.asked.append(one.entrypoint)
                answer = self.of_key.get(key_of(one)) or self.answers.get(one.entrypoint, flow("etl"))
                found[key_of(one)] = answer
                if isinstance(answer, Inspection):
                    self.known[key_of(one)] = answer
        on_found(found)
        return found

    async def inspect_alone(self, deployment: Deployment) -> InspectionResult:
        self.asked.append(f"{deployment.entrypoint} alone")
        await self.release.wait()
        answer = self.alone.get(deployment.entrypoint, flow("etl"))
        if isinstance(answer, Inspection):
            self.known[key_of(deployment)] = answer
        return answer

    def forget_others(self, deployments: Iterable[Deployment]) -> None:
        """It has forgotten them already."""

    async def changed(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        await asyncio.sleep(0)
        if any(one.name == self.odd for one in deployments):
            raise RuntimeError(f"{self.odd} cannot be compared")
        return [one for one in deployments if key_of(one) not in self.known]

    def change(self, entrypoint: str, answer: InspectionResult) -> None:
        """The file is another one now."""
        self.known = {key: known for key, known in self.known.items() if key[0] != entrypoint}
        self.answers[entrypoint] = answer


def flow(name: str, *, schema: Mapping[str, Json] | None = None) -> Inspection:
    return Inspection(
        flow_name=name, description=None, parameter_schema=schema or {}, prefect_version="3.8.8", file=None
    )


BROKEN = InspectionFailure(kind="import-failed", message="cannot import etl.py: SyntaxError")


@dataclass
class Host:
    """One life of a daemon, as far as registering goes."""

    prefect: FakePrefect
    inspector: FakeInspector
    journal: Journal
    registry: Registry
    registrar: Registrar
    lines: LogLines
    registered: list[int]
    rechecker: Rechecker
    api: PrefectApi

    async def want(self, *deployments: Deployment, problems: Sequence[Problem] = ()) -> ConfigChanges:
        """A reading of the files; returns when all of it has been dealt with."""
        changes = self.begin(*deployments, problems=problems)
        await self.registrar.settled.wait()
        return changes

    def begin(self, *deployments: Deployment, problems: Sequence[Problem] = (), inspect: bool = False) -> ConfigChanges:
        return self.registrar.plan(
            Config(settings=settings(), deployments=deployments, problems=tuple(problems), files=("10.yaml",)),
            inspect=inspect,
        )

    def entry(self, deployment: Deployment) -> Entry:
        found = self.registry.get(key_of(deployment))
        assert found is not None
        return found

    def stored(self, name: str) -> dict[str, object]:
        (found,) = [one for one in self.prefect.deployments.values() if one["name"] == name]
        return found


@asynccontextmanager
async def a_host(
    folder: Path, prefect: FakePrefect | None = None, inspector: FakeInspector | None = None
) -> AsyncIterator[Host]:
    prefect, inspector = prefect or FakePrefect(major=3), inspector or FakeInspector()
    lines, registered = LogLines(), list[int]()
    journal = Journal(path=str(folder / "journal.db"), now=lambda: NOON, log=log_to(LogLines()))
    registry, api = Registry(), fake_api(prefect)
    ambient = replace(
        an_ambient(lines, now=lambda: NOON, clock=asyncio.get_running_loop().time),
        backoff=lambda: Backoff(first_s=1.0, cap_s=30.0, uniform=lambda: 1.0),
    )
    registrar = Registrar(
        api=api,
        inspector=inspector,  # type: ignore[arg-type]
        journal=journal,
        registry=registry,
        url=URL,
        ambient=ambient,
        wakes=Wakes(poll=NotedEvent(lambda: registered.append(len(registry.ids())))),
        problems=Problems(),
    )
    rechecker = Rechecker(
        registry=registry,
        inspector=inspector,  # type: ignore[arg-type]
        registrar=registrar,
        ambient=ambient,
    )
    keeping = asyncio.create_task(registrar.run())
    try:
        yield Host(prefect, inspector, journal, registry, registrar, lines, registered, rechecker, api)
        assert not keeping.done(), "registering has ended, and the daemon with it"
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        journal.close()
        if not keeping.cancelled():
            keeping.result()
