"""Makes the launch specs of runs of this host's own deployments, from the registry and the host's environment.

Invariants: what prevents a start is returned as one sentence, never raised; a run keeps the tree of its source that it
was first started in, and so do its hooks.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from runnerd.core.machine import RunRecord
from runnerd.core.prefect import FlowRun
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import Deployment
from runnerd.deployments.registry import Entry, Registry
from runnerd.deployments.sources.run_code import RunCode
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.environment import Environments
from runnerd.launch.prepared import Prepared, WarmWish
from runnerd.launch.scratch import scratch_directory
from runnerd.launch.spec import ApiAccess, hooks_spec, launch_spec, program_text

_GONE = "its deployment is not configured on this host any more"


class FlowLauncher:
    """Launches runs of this host's own deployments; `access` is read at each start, for a rotated key."""

    def __init__(
        self,
        *,
        registry: Registry,
        code: RunCode,
        access: Callable[[], ApiAccess],
        output_dir: str,
        environments: Environments,
        worker_name: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._code = code
        self._access = access
        self._output_dir = output_dir
        self._environments = environments
        self._worker_name = worker_name

    async def prepare(self, record: RunRecord) -> Prepared:
        """Make the launch spec of this attempt, or a sentence why it cannot be started."""
        entry = self._registry.by_id(record.deployment_id)
        return await self._prepare(record, entry, await self._code.find(record, entry.deployment) if entry else _GONE)

    async def prepare_plan(self, record: RunRecord, run: FlowRun) -> Prepared:
        """Make the launch spec for a plan, as for a start: nothing is written, pulled or read from Prefect."""
        entry = self._registry.by_id(record.deployment_id)
        return await self._prepare(record, entry, self._code.find_known(record, entry.deployment) if entry else _GONE)

    async def _prepare(self, record: RunRecord, entry: Entry | None, deployment: Deployment | str) -> Prepared:
        """Make it of the deployment with the tree of this run; a text says why there is none."""
        if entry is None or isinstance(deployment, str):
            return Prepared(start=str(deployment))
        environment = await self._environments.build_layers(deployment.run)
        if isinstance(environment, str | Unanswered):
            return Prepared(start=environment)
        base, from_file = environment
        tmp = deployment.run.environment.get("TMPDIR") or from_file.get("TMPDIR") or "/tmp"
        access = self._access()
        spec = launch_spec(
            record,
            deployment,
            access=access,
            worker=self._worker_name(),
            base=base,
            file_environment=from_file,
            output=os.path.join(self._output_dir, f"{record.id}.{record.attempt}.log"),
            scratch=scratch_directory(record, tmp=tmp) if deployment.scratch else None,
        )
        run = deployment.run
        wish = WarmWish(
            start=run.start,
            preload=run.preload,
            owner=record.deployment_id or entry.full_name,
            prefect_version=entry.prefect_version,
        )
        known = self._code.note(record, deployment)
        layers = {"base": base, "api": access.environment, "file": from_file, "run": run.environment}
        found = Prepared(start=spec, user=run.user or base["USER"], warm=wish, record_fields=known, layers=layers)
        return found.with_commands(run)

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        """Make the launch spec of the run's hooks, or say why the hooks cannot be run, or not yet.

        A deployment that has left the files meanwhile is no reason not to run them.
        """
        entry = self._registry.last_known(record.deployment_id)
        code = await self._code.find(record, entry.deployment) if entry is not None else _GONE
        flow = (await self._prepare(record, entry, code)).start
        if entry is None or isinstance(flow, str | Unanswered):
            return flow
        return hooks_spec(
            flow, record, program=program_text("run_hooks"), timeout_s=entry.deployment.run.hook_timeout_s
        )
