"""Launch specs for this host: looks up what the pure part of launching needs to be told.

Invariant: whatever keeps a run from being started comes back as one sentence, never as an exception.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.deployments.registry import Registry
from runnerd.launch.environment import Environments
from runnerd.launch.prepared import Prepared
from runnerd.launch.spec import ApiAccess, hooks_spec, launch_spec, program_text


class FlowLauncher:
    """`access` is asked at every start, so that a rotated key reaches the next run."""

    def __init__(
        self,
        *,
        registry: Registry,
        access: Callable[[], ApiAccess],
        output_dir: str,
        environments: Environments,
    ) -> None:
        self._registry = registry
        self._access = access
        self._output_dir = output_dir
        self._environments = environments

    async def prepare(self, record: RunRecord) -> Prepared:
        """What to start for this attempt, or why it cannot be."""
        entry = self._registry.by_id(record.deployment_id)
        if entry is None:
            return Prepared(start="its deployment is not configured on this host any more")
        environment = self._environments.layers(entry.deployment.run)
        if isinstance(environment, str):
            return Prepared(start=environment)
        base, from_file = environment
        spec = launch_spec(
            record,
            entry.deployment,
            access=self._access(),
            base=base,
            file_environment=from_file,
            output=os.path.join(self._output_dir, f"{record.id}.{record.attempt}.log"),
        )
        return Prepared(start=spec, user=entry.deployment.run.user or base["USER"])

    async def hooks(self, record: RunRecord) -> LaunchSpec | str:
        """What to start to run this record's hooks, or why they cannot be run."""
        entry, flow = self._registry.by_id(record.deployment_id), (await self.prepare(record)).start
        if entry is None or isinstance(flow, str):
            return str(flow)
        return hooks_spec(
            flow, record, program=program_text("run_hooks"), timeout_s=entry.deployment.run.hook_timeout_s
        )
