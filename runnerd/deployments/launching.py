"""Makes the launch specs of runs of this host's own deployments, from the registry and the host's environment.

Invariant: what prevents a start is returned as one sentence, never raised.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.deployments.registry import Entry, Registry
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.environment import Environments
from runnerd.launch.prepared import Prepared, WarmWish
from runnerd.launch.spec import ApiAccess, hooks_spec, launch_spec, program_text


class FlowLauncher:
    """Launches runs of this host's own deployments; `access` is read at each start, for a rotated key."""

    def __init__(
        self,
        *,
        registry: Registry,
        access: Callable[[], ApiAccess],
        output_dir: str,
        environments: Environments,
        worker_name: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._access = access
        self._output_dir = output_dir
        self._environments = environments
        self._worker_name = worker_name

    async def prepare(self, record: RunRecord) -> Prepared:
        """Make the launch spec of this attempt, or a sentence why it cannot be started."""
        entry = self._registry.by_id(record.deployment_id)
        return await self._prepare(record, entry)

    async def _prepare(self, record: RunRecord, entry: Entry | None) -> Prepared:
        if entry is None:
            return Prepared(start="its deployment is not configured on this host any more")
        environment = await self._environments.build_layers(entry.deployment.run)
        if isinstance(environment, str | Unanswered):
            return Prepared(start=environment)
        base, from_file = environment
        spec = launch_spec(
            record,
            entry.deployment,
            access=self._access(),
            worker=self._worker_name(),
            base=base,
            file_environment=from_file,
            output=os.path.join(self._output_dir, f"{record.id}.{record.attempt}.log"),
            prefect_version=entry.prefect_version,
        )
        run = entry.deployment.run
        wish = WarmWish(
            start=run.start,
            preload=run.preload,
            owner=record.deployment_id or entry.full_name,
            prefect_version=entry.prefect_version,
        )
        return Prepared(start=spec, user=run.user or base["USER"], warm=wish).with_commands(run)

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        """Make the launch spec of the run's hooks, or say why the hooks cannot be run, or not yet.

        A deployment that has left the files meanwhile is no reason not to run them.
        """
        entry = self._registry.last_known(record.deployment_id)
        flow = (await self._prepare(record, entry)).start
        if entry is None or isinstance(flow, str | Unanswered):
            return flow
        return hooks_spec(
            flow, record, program=program_text("run_hooks"), timeout_s=entry.deployment.run.hook_timeout_s
        )
