"""launching.py: what the launch specs of own runs and of their hooks are made from."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from runnerd.core.process import LaunchSpec
from runnerd.core.settings import Config, key_of
from runnerd.deployments.launching import FlowLauncher
from runnerd.deployments.registry import Entry, Registry
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.deployments.sources.pulling import Pulled
from runnerd.deployments.sources.run_code import RunCode
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from tests.kits.nouns import URL, a_deployment, a_record, settings
from tests.kits.sources import URL as URL_OF_CODE
from tests.kits.sources import FakePuller, a_keeper, a_source, a_tree, no_sources

GONE = "its deployment is not configured on this host any more"


def launcher(registry: Registry, sources: SourceKeeper | None = None) -> FlowLauncher:
    return FlowLauncher(
        registry=registry,
        code=RunCode(sources=sources or no_sources()),
        access=lambda: ApiAccess(url=URL, environment={}),
        output_dir="/out",
        environments=Environments(environ={}, calls=BoundedCalls()),
        worker_name=lambda: "etl-1",
    )


async def test_hooks_run_also_of_a_deployment_that_left_the_files_during_the_run() -> None:
    registry = Registry()
    deployment = a_deployment("nightly")
    record = a_record("r-1", deployment_id="d-1")
    registry.put(Entry(deployment=deployment, flow="etl", deployment_id="d-1"))
    assert isinstance((await launcher(registry).prepare(record)).start, LaunchSpec)
    registry.remove(key_of(deployment))
    assert (await launcher(registry).prepare(record)).start == GONE, "no new run starts"
    assert isinstance(await launcher(registry).prepare_hooks(record), LaunchSpec)
    assert await launcher(Registry()).prepare_hooks(record) == GONE, "this daemon has never known it"


A, B = Pulled(tree=a_tree("a")), Pulled(tree=a_tree("b"))


async def test_a_run_keeps_the_tree_that_it_was_started_in() -> None:
    deployment = replace(a_deployment("nightly", entrypoint="flows/etl.py:etl"), source=a_source())
    puller, registry = FakePuller(A), Registry()
    registry.put(Entry(deployment=deployment, flow="etl", deployment_id="d-1"))
    keeper = a_keeper(puller)
    keeper.take(Config(settings=settings(), deployments=(deployment,)))
    pulling = asyncio.create_task(keeper.run())
    await asyncio.sleep(1)
    started = a_record("r-1", deployment_id="d-1")
    prepared = await launcher(registry, keeper).prepare(started)
    assert isinstance(prepared.start, LaunchSpec)
    assert prepared.start.working_directory == A.tree.directory
    assert prepared.start.environment["PREFECT__FLOW_ENTRYPOINT"] == f"{A.tree.directory}/flows/etl.py:etl"
    started = replace(started, **prepared.record_fields)
    assert started.source == {
        "kind": "git", "url": URL_OF_CODE, "commit": "a" * 40, "pulled_at": "2025-01-01T12:00:00.000Z",
        "problem": None, "directory": A.tree.directory,
    }  # fmt: skip
    puller.answer = B
    await keeper.pull(deployment, afresh=True)
    again = await launcher(registry, keeper).prepare(started)
    hooks = await launcher(registry, keeper).prepare_hooks(started)
    other = await launcher(registry, keeper).prepare(a_record("r-2", deployment_id="d-1"))
    assert isinstance(again.start, LaunchSpec) and isinstance(other.start, LaunchSpec) and isinstance(hooks, LaunchSpec)
    assert again.start.working_directory == hooks.working_directory == A.tree.directory
    assert again.record_fields == {}
    assert other.start.working_directory == B.tree.directory
    pulling.cancel()
    await asyncio.wait([pulling])


async def test_pull_steps_are_run_in_a_directory_of_the_run() -> None:
    steps = ({"prefect.deployments.steps.git_clone": {"repository": "https://h/x"}},)
    registry = Registry()
    deployment = replace(a_deployment("nightly", entrypoint="flows/etl.py:etl"), pull_steps=steps, scratch=True)
    registry.put(Entry(deployment=deployment, flow="etl", deployment_id="d-1", prefect_version="3.9.1"))
    spec = (await launcher(registry).prepare(a_record("r-1", deployment_id="d-1"))).start
    assert isinstance(spec, LaunchSpec)
    assert spec.make_directory and spec.working_directory.startswith("/tmp/runnerd-r-1-")
    assert json.loads(spec.environment["RUNNERD_PULL_STEPS"]) == list(steps)
    assert spec.environment["PREFECT__FLOW_ENTRYPOINT"] == "flows/etl.py:etl"
    assert spec.argv[1:] == ("-c", "import os; exec(os.environ.pop('RUNNERD_PROGRAM'))", "prefect.engine")
    registry.put(replace(registry.entries()[0], deployment=replace(deployment, scratch=False)))
    here = (await launcher(registry).prepare(a_record("r-1", deployment_id="d-1"))).start
    assert isinstance(here, LaunchSpec)
    assert (here.make_directory, here.working_directory) == (False, "/srv/flows")
