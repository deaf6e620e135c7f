"""backend/sources.py: what a pull that was asked for leads to."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from runnerd.control.backend.sources import SourceChanges
from runnerd.control.contract import SourceChange
from runnerd.core.settings import Config
from runnerd.deployments.sources.pulling import Pulled
from tests.kits.nouns import a_deployment, settings
from tests.kits.sources import FakePuller, a_keeper, a_source, a_tree

ETL = replace(a_deployment("etl", run={"working_directory": "/"}, entrypoint="flows/etl.py:etl"), source=a_source())
A = Pulled(tree=a_tree("a"))


async def test_a_pull_whose_entrypoint_leads_out_of_the_tree_is_refused() -> None:
    puller = FakePuller(replace(A, outside=frozenset({"flows/etl.py"})))
    keeper = a_keeper(puller)
    changes = SourceChanges(sources=keeper)
    keeper.take(Config(settings=settings(), deployments=(ETL,)))
    task = asyncio.create_task(keeper.run())
    await asyncio.sleep(1)
    refused = await changes.carry_out(ETL, SourceChange(verb="pull"))
    assert refused is not None
    assert refused.status == 409
    why = "its entrypoint flows/etl.py leads out of the tree of its source"
    assert refused.detail == f"cannot pull https://git.example/etl.git branch main: {why}"
    puller.answer = A
    assert await changes.carry_out(ETL, SourceChange(verb="pull")) is None
    assert changes.locate(ETL).tree == A.tree
    task.cancel()
    await asyncio.wait([task])
