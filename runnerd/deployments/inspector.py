"""Runs inspections through the spawner, one short process per interpreter, user and directory, and caches them.

Invariants: a flow's code runs only as the flow's user; a failed inspection affects only its own deployments. A flow
whose import hangs, waiting for the API for example, takes no place from the others: it is put aside as slow, and is
inspected alone.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import Hook, RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import Inspection
from runnerd.core.settings import Deployment, key_of
from runnerd.deployments.command_inspection import inspect_command, split_commands
from runnerd.deployments.dependencies import Change, Inspected, compare_all, read_stamp
from runnerd.deployments.inspection import (
    PATIENCE_S,
    InspectionFailure,
    cache_key,
    inspection_batches,
    inspection_spec,
    parse_results,
)
from runnerd.deployments.registry import Key, Registry
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.journal.journal import Journal
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess, flow_environment
from runnerd.processes.helper import name_helper, run_helper
from runnerd.processes.link import SpawnerLink, describe_end

InspectionResult = Inspection | InspectionFailure
_Hashed = tuple[Deployment, str | None]  # None: its file is to be hashed
_HASHED_PER_CALL = 50


@dataclass(frozen=True, slots=True)
class _ProcessSettings:
    """The settings that deployments must share to be inspected by one process."""

    python: str
    user: str | None
    group: str | None
    working_directory: str
    environment: tuple[tuple[str, str], ...]
    environment_file: str | None
    pull: str
    limits: tuple[object, ...]  # those of the run, within which its flow is imported


class Inspector:
    """Inspects the flows of deployments, in `at_once` processes and as many for slow ones.

    The processes' result files are in `work_dir` until they are read. `access` is read for each process.
    """

    def __init__(
        self,
        *,
        link: SpawnerLink,
        journal: Journal,
        registry: Registry,
        environments: Environments,
        access: Callable[[], ApiAccess],
        calls: BoundedCalls,
        work_dir: str,
        at_once: int,
    ) -> None:
        self._link = link
        self._journal = journal
        self._registry = registry
        self._environments = environments
        self._access = access
        self._calls = calls
        self._work_dir = work_dir
        self._quick, self._alone = asyncio.Semaphore(at_once), asyncio.Semaphore(at_once)  # processes
        self._slow: set[Key] = set()
        self._inspected: dict[Key, Inspected] = {}  # what the last answer of each depends on

    async def cached(self, deployments: Iterable[Deployment]) -> dict[Key, Inspection]:
        """Return the cached inspections of those deployments for which nothing has changed since, and of commands."""
        commands, flows = split_commands(deployments)
        known = {key_of(one): inspect_command(one, one.command) for one in commands if one.command is not None}
        keys = await self._cache_keys([(deployment, None) for deployment in flows])
        found = {
            key_of(one): (one, answer)
            for (one, _), key in keys
            if key is not None and (answer := self._journal.inspection(key)) is not None
        }
        compared = await compare_all([Inspected.by(answer, one) for one, answer in found.values()], calls=self._calls)
        same = {key_of(one.deployment): one for one, change in compared if change is Change.NONE}
        self._inspected |= same
        return {**known, **{key: found[key][1] for key in same}}

    async def hooks_of(self, deployment: Deployment) -> tuple[str, ...] | None:
        """Return the names of the flow's state change hooks; None when its present code was not inspected."""
        found = (await self.cached([deployment])).get(key_of(deployment))
        return found.hooks if found is not None else None

    async def changed(self, deployments: Iterable[Deployment]) -> list[Deployment]:
        """Return those of the deployments for which something has changed since they were last inspected."""
        last = [self._inspected.get(key_of(one)) for one in deployments]
        compared = await compare_all([one for one in last if one is not None], calls=self._calls)
        return [one.deployment for one, change in compared if change is Change.SOME]

    def forget_others(self, deployments: Iterable[Deployment]) -> None:
        """Forget what the answers depend on of all deployments but these."""
        keys = {key_of(one) for one in deployments}
        self._inspected = {key: one for key, one in self._inspected.items() if key in keys}

    async def _cache_keys(self, asked: Sequence[_Hashed]) -> list[tuple[_Hashed, str | None]]:
        """Compute the key of each deployment, off the event loop; None for a file that does not answer, too."""
        by_place: dict[str, list[_Hashed]] = {}
        for one in asked:
            by_place.setdefault(one[0].run.working_directory, []).append(one)
        found: list[tuple[_Hashed, str | None]] = []
        for place, ones in by_place.items():
            for start in range(0, len(ones), _HASHED_PER_CALL):
                few = ones[start : start + _HASHED_PER_CALL]
                keys = await self._calls.call(place, partial(_compute_keys, few))
                found += zip(few, [None] * len(few) if isinstance(keys, Unanswered) else keys, strict=True)
        return found

    async def may_have_hook(self, record: RunRecord, hook: Hook) -> bool:
        """Whether the flow of this run has the hook, by the cached inspections; True when that is unknown."""
        if record.command is not None:
            return False
        if record.pool is not None and record.failure is not None:
            return False  # no launch spec could be made for the flow, so none can be made for its hooks
        own = record.pool is None and record.guest is None
        entry = self._registry.last_known(record.deployment_id) if own else None
        hooks = await self.hooks_of(entry.deployment) if entry is not None else None
        return hooks is None or hook in hooks

    async def inspect(
        self,
        deployments: Sequence[Deployment],
        *,
        afresh: Collection[Key] = (),
        on_found: Callable[[Mapping[Key, InspectionResult]], None] = lambda found: None,
    ) -> dict[Key, InspectionResult]:
        """Inspect each deployment's flow, from the cache where nothing has changed, else by running its code.

        Those `afresh` are inspected by running their code. A failure of the kind "slow" leaves the flow to
        `inspect_alone`. `on_found` is called with the answers of each process as soon as it has ended.
        """
        others = [one for one in deployments if one.command is not None or key_of(one) not in afresh]
        found: dict[Key, InspectionResult] = dict(await self.cached(others))
        groups: dict[_ProcessSettings, list[Deployment]] = {}
        for deployment in deployments:
            key = key_of(deployment)
            if key in self._slow and key not in found:
                found[key] = InspectionFailure(kind="slow", message=f"{deployment.entrypoint}: importing it is slow")
            elif key not in found:
                groups.setdefault(_process_settings(deployment), []).append(deployment)
        self._note_slow(found)
        if found:
            on_found(dict(found))

        async def inspect_batch(members: Mapping[str, list[Deployment]]) -> None:
            answers = await self._inspect_batch(members, PATIENCE_S)
            found.update(answers)
            self._note_slow(answers)
            on_found(answers)

        async with asyncio.TaskGroup() as tasks:
            for batch in itertools.chain.from_iterable(map(_batches, groups.values())):
                tasks.create_task(inspect_batch(batch))
        return found

    def _note_slow(self, answers: Mapping[Key, InspectionResult]) -> None:
        slow = {key for key, one in answers.items() if isinstance(one, InspectionFailure) and one.kind == "slow"}
        self._slow = self._slow - answers.keys() | slow

    async def inspect_alone(self, deployment: Deployment) -> InspectionResult:
        """Inspect one flow by running its code, within the whole time limit."""
        (found,) = (await self._inspect_batch({deployment.entrypoint: [deployment]}, None)).values()
        if isinstance(found, Inspection):
            self._slow.discard(key_of(deployment))
        return found

    async def _inspect_batch(
        self, by_entrypoint: Mapping[str, list[Deployment]], patience_s: float | None
    ) -> dict[Key, InspectionResult]:
        """Inspect these entrypoints, of deployments with the same settings of the process, in one process."""
        batch, member = tuple(by_entrypoint), next(iter(by_entrypoint.values()))[0]
        # Stamped before the files are read: a change in between is then seen as one.
        stamps = await self._stamp_files(member, batch)
        answers = {
            ep: _with_stamps(answer, stamps[ep])
            for ep, answer in (await self._run_inspection(member, batch, patience_s)).items()
        }
        self._note(by_entrypoint, answers, stamps)
        fresh = {ep: answer for ep, answer in answers.items() if isinstance(answer, Inspection)}
        await self._remember([(by_entrypoint[ep][0], answer) for ep, answer in fresh.items()])
        return {key_of(one): answer for ep, answer in answers.items() for one in by_entrypoint[ep]}

    async def _stamp_files(self, member: Deployment, entrypoints: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return for each entrypoint the stamps of its file, where it names one, and of the environment file."""
        folder, more = member.run.working_directory, member.run.environment_file
        paths = {ep: os.path.join(folder, ep.rpartition(":")[0]) for ep in entrypoints if ".py:" in ep}

        def read() -> dict[str, dict[str, str]]:
            all_paths = {ep: [path for path in (paths.get(ep), more) if path is not None] for ep in entrypoints}
            return {
                ep: {path: stamp for path in some if (stamp := read_stamp(path)) is not None}
                for ep, some in all_paths.items()
            }

        stamps = await self._calls.call(folder, read)
        return {ep: {} for ep in entrypoints} if isinstance(stamps, Unanswered) else stamps

    def _note(
        self,
        by_entrypoint: Mapping[str, Sequence[Deployment]],
        answers: Mapping[str, InspectionResult],
        stamps: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Note what each deployment's answer depends on; of a failure that is its file, as far as anybody knows."""
        for entrypoint, answer in answers.items():
            last = answer.dependencies if isinstance(answer, Inspection) else stamps[entrypoint]
            self._inspected |= {key_of(one): Inspected(one, last) for one in by_entrypoint[entrypoint]}

    async def _remember(self, fresh: Sequence[tuple[Deployment, Inspection]]) -> None:
        keys = await self._cache_keys([(deployment, answer.sha256) for deployment, answer in fresh])
        answers = {key_of(deployment): answer for deployment, answer in fresh}
        keyed = {key: answers[key_of(one)] for (one, _), key in keys if key is not None}
        self._journal.save_inspections(keyed)

    async def _run_inspection(
        self, member: Deployment, entrypoints: tuple[str, ...], patience_s: float | None
    ) -> dict[str, InspectionResult]:
        """Run one process with the settings of `member` for a batch of entrypoints."""
        run = member.run
        layers = await self._environments.build_layers(run)
        if isinstance(layers, str | Unanswered):
            failure = InspectionFailure(kind="no-answer", message=str(layers))
            return dict.fromkeys(entrypoints, failure)
        base, from_file = layers
        environment = flow_environment(run, access=self._access(), base=base, file_environment=from_file)
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
            limits=run,
            patience_s=patience_s,
            pull=_pull_of(member),
        )
        try:
            async with self._alone if patience_s is None else self._quick:
                outcome = await run_helper(spec, link=self._link)
        except SpawnerError as error:
            return parse_results("", entrypoints, words=str(error))
        words = describe_end(outcome.record)
        return await asyncio.to_thread(parse_results, outcome.answer, entrypoints, words=words)


def _batches(members: Iterable[Deployment]) -> Iterator[dict[str, list[Deployment]]]:
    """Split deployments that can share a process, by their entrypoints, into those of one process each."""
    by_entrypoint: dict[str, list[Deployment]] = {}
    for deployment in members:
        by_entrypoint.setdefault(deployment.entrypoint, []).append(deployment)
    for batch in inspection_batches(by_entrypoint):
        yield {entrypoint: by_entrypoint[entrypoint] for entrypoint in batch}


def _with_stamps(answer: InspectionResult, stamps: Mapping[str, str]) -> InspectionResult:
    if not isinstance(answer, Inspection):
        return answer
    return replace(answer, dependencies={**stamps, **(answer.dependencies or {})})


def _process_settings(deployment: Deployment) -> _ProcessSettings:
    run = deployment.run
    return _ProcessSettings(
        run.python,
        run.user,
        run.group,
        run.working_directory,
        tuple(sorted(run.environment.items())),
        run.environment_file,
        json.dumps(_pull_of(deployment), sort_keys=True),
        (
            *(run.memory_max_bytes, run.cpu_quota_percent, run.tasks_max, run.runtime_max_s, run.nice),
            *sorted(run.rlimits.items()),
        ),
    )


def _pull_of(deployment: Deployment) -> Json:
    """Return what inspection_spec says of pull steps that are run here; None without such."""
    return {"steps": deployment.pull_steps, "scratch": deployment.scratch} if deployment.runs_pull_steps else None


def _compute_keys(asked: Sequence[_Hashed]) -> list[str | None]:
    return [_cache_key(deployment, sha256) for deployment, sha256 in asked]


def _cache_key(deployment: Deployment, sha256: str | None = None) -> str | None:
    run = deployment.run
    if deployment.runs_pull_steps:
        return None  # what its steps will fetch is not known
    return cache_key(
        python=run.python,
        entrypoint=deployment.entrypoint,
        working_directory=run.working_directory,
        user=run.user,
        environment=run.environment,
        sha256=sha256,
    )
