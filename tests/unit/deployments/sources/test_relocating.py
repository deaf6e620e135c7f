"""relocating.py: deployments follow the versions of their sources, and say why they cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from runnerd.core.settings import Config, Deployment
from runnerd.deployments.relocating import Relocator
from runnerd.deployments.sources.pulling import Pulled
from tests.kits.engine import an_ambient
from tests.kits.nouns import NOON, LogLines, a_deployment, settings
from tests.kits.registrar import FakeInspector, Host, a_host, flow
from tests.kits.sources import FakePuller, a_keeper, a_source, a_tree

A, B = Pulled(tree=a_tree("a")), Pulled(tree=a_tree("b"))
ETL = replace(a_deployment("etl", run={"working_directory": "/"}, entrypoint="flows/etl.py:etl"), source=a_source())


class Following:
    """A host whose deployments follow a keeper."""

    def __init__(self, host: Host, puller: FakePuller) -> None:
        self.host, self.puller = host, puller
        self.keeper = a_keeper(puller)
        self.relocator = Relocator(
            sources=self.keeper,
            registry=host.registry,
            registrar=host.registrar,
            ambient=an_ambient(LogLines(), now=lambda: NOON, clock=lambda: 0.0),
        )

    def begin(self, *deployments: Deployment) -> None:
        config = self.keeper.take(Config(settings=settings(), deployments=deployments))
        self.host.begin(*config.deployments)

    async def settled(self) -> Deployment:
        await asyncio.sleep(1)
        await self.host.registrar.settled.wait()
        return self.host.entry(ETL).deployment


@asynccontextmanager
async def following(
    folder: Path, puller: FakePuller, inspector: FakeInspector | None = None
) -> AsyncIterator[Following]:
    async with a_host(folder, inspector=inspector) as host:
        made = Following(host, puller)
        tasks = [asyncio.create_task(made.keeper.run()), asyncio.create_task(made.relocator.run())]
        try:
            yield made
            assert not any(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_it_is_registered_once_its_code_is_there(tmp_path: Path) -> None:
    puller = FakePuller(A, hold=asyncio.Event())
    async with following(tmp_path, puller) as here:
        here.begin(ETL)
        await asyncio.sleep(5)
        assert here.host.inspector.asked == [], "nothing is inspected where there is no code"
        assert not here.host.registrar.settled.is_set()
        assert puller.hold is not None
        puller.hold.set()
        found = await here.settled()
        assert (found.tree, found.run.working_directory) == (A.tree, A.tree.directory)
        assert here.host.entry(ETL).deployment_id is not None


async def test_a_new_version_is_inspected_and_registered(tmp_path: Path) -> None:
    puller, inspector = FakePuller(A), FakeInspector()
    async with following(tmp_path, puller, inspector) as here:
        here.begin(ETL)
        await here.settled()
        before = here.host.entry(ETL).deployment_id
        puller.answer = B
        inspector.change(ETL.entrypoint, flow("etl", schema={"properties": {"rows": {}}}))
        await asyncio.sleep(61)
        found = await here.settled()
        assert found.tree == B.tree
        assert here.host.entry(ETL).deployment_id == before
        assert here.host.stored("etl")["parameter_openapi_schema"] == {"properties": {"rows": {}}}


async def test_one_that_cannot_be_pulled_says_so_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    puller, plain = FakePuller("there is no such repository"), a_deployment("plain")
    async with following(tmp_path, puller) as here:
        here.begin(ETL, plain)
        await here.settled()
        why = "its code cannot be pulled: there is no such repository"
        assert here.host.entry(ETL).problem == why
        assert here.host.entry(plain).deployment_id is not None
        here.begin(ETL, plain)  # a reload
        await here.settled()
        assert here.host.entry(ETL).problem == why
        puller.answer = A
        await asyncio.sleep(61)
        await here.settled()
        assert here.host.entry(ETL).problem is None
        assert here.host.entry(ETL).deployment_id is not None


async def test_an_entrypoint_that_led_out_of_the_tree_and_does_no_more(tmp_path: Path) -> None:
    puller = FakePuller(A)
    async with following(tmp_path, puller) as here:
        here.begin(ETL)
        await here.settled()
        puller.answer = replace(B, outside=frozenset({"flows/etl.py"}))
        await asyncio.sleep(61)
        assert "leads out of the tree" in str(here.host.entry(ETL).problem)
        puller.answer = A
        await asyncio.sleep(61)
        await here.settled()
        assert here.host.entry(ETL).problem is None


async def test_a_reload_with_the_same_files_changes_nothing(tmp_path: Path) -> None:
    async with following(tmp_path, FakePuller(A)) as here:
        here.begin(ETL)
        await here.settled()
        asked = list(here.host.inspector.asked)
        config = here.keeper.take(Config(settings=settings(), deployments=(ETL,)))
        changes = here.host.begin(*config.deployments)
        await here.settled()
        assert (changes.changed, changes.unchanged) == ((), 1)
        assert here.host.inspector.asked == asked
