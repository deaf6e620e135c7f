"""launching.py: what the launch specs of own runs and of their hooks are made from."""

from __future__ import annotations

from runnerd.core.process import LaunchSpec
from runnerd.core.settings import key_of
from runnerd.deployments.launching import FlowLauncher
from runnerd.deployments.registry import Entry, Registry
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from tests.kits.nouns import URL, a_deployment, a_record
from tests.kits.sources import no_sources

GONE = "its deployment is not configured on this host any more"


def launcher(registry: Registry) -> FlowLauncher:
    return FlowLauncher(
        registry=registry,
        sources=no_sources(),
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
