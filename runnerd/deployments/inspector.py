"""Runs inspections through the spawner, one short process per interpreter, user and directory, and caches them.

Invariants: a flow's code runs only as the flow's user; a failed inspection affects only its own deployments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import Hook, RunRecord
from runnerd.core.prefect import Inspection
from runnerd.core.settings import Deployment
from runnerd.deployments.inspection import (
    InspectionFailure,
    cache_key,
    inspection_batches,
    inspection_spec,
    parse_results,
)
from runnerd.deployments.registry import Key, Registry, key_of
from runnerd.journal.journal import Journal
from runnerd.launch.environment import Environments
from runnerd.processes.helper import name_helper, run_helper
from runnerd.processes.link import SpawnerLink, describe_end

InspectionResult = Inspection | InspectionFailure


@dataclass(frozen=True, slots=True)
class _ProcessSettings:
    """The settings that deployments must share to be inspected by one process."""

    python: str
    user: str | None
    group: str | None
    working_directory: str
    environment: tuple[tuple[str, str], ...]
    environment_file: str | None


class Inspector:
    """Inspects the flows of deployments; the processes' result files are in `work_dir` until they are read."""

    def __init__(
        self, *, link: SpawnerLink, journal: Journal, registry: Registry, environments: Environments, work_dir: str
    ) -> None:
        self._link = link
        self._journal = journal
        self._registry = registry
        self._environments = environments
        self._work_dir = work_dir

    def cached(self, deployments: Iterable[Deployment]) -> dict[Key, Inspection]:
        """Return the cached inspections of those deployments whose file has not changed since."""
        cached = self._journal.inspections()
        keys = {key_of(deployment): _cache_key(deployment) for deployment in deployments}
        return {one: cached[key] for one, key in keys.items() if key is not None and key in cached}

    def hooks_of(self, deployment: Deployment) -> tuple[str, ...] | None:
        """Return the names of the flow's state change hooks; None when its present code was not inspected."""
        key = _cache_key(deployment)
        cached = self._journal.inspection(key) if key is not None else None
        return cached.hooks if cached is not None else None

    def may_have_hook(self, record: RunRecord, hook: Hook) -> bool:
        """Whether the flow of this run has the hook, by the cached inspections; True when that is unknown."""
        if record.pool is not None and record.failure is not None:
            return False  # no launch spec could be made for the flow, so none can be made for its hooks
        entry = self._registry.own(record.deployment_id)
        hooks = self.hooks_of(entry.deployment) if entry is not None else None
        return hooks is None or hook in hooks

    async def inspect(self, deployments: Sequence[Deployment]) -> dict[Key, InspectionResult]:
        """Inspect each deployment's flow, from the cache where its file is unchanged, else by running its code."""
        found: dict[Key, InspectionResult] = dict(self.cached(deployments))
        groups: dict[_ProcessSettings, list[Deployment]] = {}
        for deployment in deployments:
            if key_of(deployment) not in found:
                groups.setdefault(_process_settings(deployment), []).append(deployment)
        for members in groups.values():
            for findings in await self._inspect_group(members):
                found.update(findings)
        return found

    async def _inspect_group(self, members: list[Deployment]) -> list[dict[Key, InspectionResult]]:
        by_entrypoint: dict[str, list[Deployment]] = {}
        for deployment in members:
            by_entrypoint.setdefault(deployment.entrypoint, []).append(deployment)
        results: list[dict[Key, InspectionResult]] = []
        for batch in inspection_batches(by_entrypoint):
            answers = await self._run_inspection(members[0], batch)
            results.append({key_of(one): answer for ep, answer in answers.items() for one in by_entrypoint[ep]})
            fresh = {ep: answer for ep, answer in answers.items() if isinstance(answer, Inspection)}
            self._remember([(by_entrypoint[ep][0], answer) for ep, answer in fresh.items()])
        return results

    def _remember(self, fresh: Iterable[tuple[Deployment, Inspection]]) -> None:
        keyed = {_cache_key(deployment, answer.sha256): answer for deployment, answer in fresh}
        self._journal.save_inspections({key: answer for key, answer in keyed.items() if key is not None})

    async def _run_inspection(self, member: Deployment, entrypoints: tuple[str, ...]) -> dict[str, InspectionResult]:
        """Run one process with the settings of `member` for a batch of entrypoints."""
        run = member.run
        environment = self._environments.build(run)
        if isinstance(environment, str):
            failure = InspectionFailure(kind="no-answer", message=environment)
            return dict.fromkeys(entrypoints, failure)
        names = name_helper(self._work_dir)
        spec = inspection_spec(
            python=run.python,
            user=run.user,
            group=run.group,
            working_directory=run.working_directory,
            environment=environment,
            entrypoints=entrypoints,
            key=names.key,
            output=names.output,
            result=names.result,
        )
        try:
            outcome = await run_helper(spec, link=self._link)
        except SpawnerError as error:
            return parse_results("", entrypoints, words=str(error))
        return parse_results(outcome.answer, entrypoints, words=describe_end(outcome.record))


def _process_settings(deployment: Deployment) -> _ProcessSettings:
    run = deployment.run
    return _ProcessSettings(
        run.python,
        run.user,
        run.group,
        run.working_directory,
        tuple(sorted(run.environment.items())),
        run.environment_file,
    )


def _cache_key(deployment: Deployment, sha256: str | None = None) -> str | None:
    run = deployment.run
    return cache_key(
        python=run.python,
        entrypoint=deployment.entrypoint,
        working_directory=run.working_directory,
        user=run.user,
        environment=run.environment,
        sha256=sha256,
    )
