"""Registers the deployments of conf.d: inspects their flows, creates or updates the deployments in the API.

Invariants: an unchanged deployment costs no request; a failure affects only its own deployment. Deployments that left
the files are dropped by dropping.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from http import HTTPStatus

from runnerd.core.errors import ApiAway, ApiError, ApiRejected, JournalError
from runnerd.core.place import Problem
from runnerd.core.prefect import Inspection
from runnerd.core.problems import Problems
from runnerd.core.settings import Config, Deployment, key_of
from runnerd.core.wakes import Wakes
from runnerd.deployments.dropping import Dropper
from runnerd.deployments.inspection import InspectionFailure
from runnerd.deployments.inspector import InspectionResult, Inspector
from runnerd.deployments.planning import ConfigChanges, Planner, differs
from runnerd.deployments.registry import Key, Registry
from runnerd.journal.journal import Journal, Registration
from runnerd.log.alerts import Alert
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.dialect import deployment_body, deployment_fingerprint, schedule_bodies
from runnerd.prefect_api.schedule_changes import SentSchedule
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

_LOOP = "register"
_FAILURES_PER_ROUND = 3  # more than that, and it is not one deployment but the API
_REGISTER_BOUND_S = 3600.0  # the longest time without a beat; inspecting a thousand flows takes long


class Registrar:
    """Registers in `run` what `plan` has taken from the configuration last read."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        inspector: Inspector,
        journal: Journal,
        registry: Registry,
        url: str,
        ambient: Ambient,
        wakes: Wakes,
        problems: Problems,
    ) -> None:
        self._api = api
        self._inspector = inspector
        self._journal = journal
        self._registry = registry
        self._url = url
        self._log = ambient.log
        self._contained = Containment(log=ambient.log, loop=_LOOP, passing=(ApiError, JournalError))
        self._pulse = ambient.pulse
        self._backoff = ambient.backoff
        self._wakes = wakes
        problems.register(self.problems)
        self._planner = Planner(journal=journal, registry=registry, url=url)
        self._todo: dict[Key, Deployment] = {}
        self._afresh: set[Key] = set()  # of _todo: those whose flows are inspected whatever the cache has
        self._without_pool: dict[Key, Deployment] = {}
        self._dropper = Dropper(api=api, journal=journal, registry=registry, url=url, log=ambient.log)
        self._unannounced = False  # a deployment got its id since the poller and the refresher were last woken
        self._work = asyncio.Event()
        self.settled = asyncio.Event()  # set while every wanted deployment is registered or has failed

    # --- what the files want --------------------------------------------------------------------------------------

    def plan(self, config: Config, *, inspect: bool = False) -> ConfigChanges:
        """Put the configuration's deployments into the registry now, and have `run` register them.

        With `inspect`, flows are inspected again for which nothing seems to have changed.
        """
        planned = self._planner.plan(config)
        self._todo = planned.todo
        self._afresh = set(planned.todo) if inspect else self._afresh & planned.todo.keys()
        self._dropper.plan(config, planned.registrations)
        self.settled.clear()
        self._work.set()
        return planned.changes

    # --- registering ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Register and drop what `plan` listed, for ever; retry while the API is away."""
        backoff = self._backoff()
        while True:
            self._pulse.beat(_LOOP, within_s=float("inf"))
            await self._work.wait()
            self._work.clear()
            self._pulse.beat(_LOOP, within_s=_REGISTER_BOUND_S)
            left = self._left()
            try:
                with self._contained.item("a round") as item:
                    await self._register_and_drop()
            except (ApiError, JournalError) as error:
                self._work.set()
                if self._left() < left:
                    backoff.reset()  # some requests succeed: a server on SQLite refuses one of two writes at a time
                await asyncio.sleep(backoff.next_s(error if isinstance(error, ApiError) else None))
                continue
            if item.why is not None:
                self._work.set()
                await asyncio.sleep(backoff.next_s())
                continue
            backoff = self._backoff()
            if not self._work.is_set():
                self.settled.set()

    def _left(self) -> int:
        return len(self._todo) + self._dropper.left

    async def _register_and_drop(self) -> None:
        await self._settle_unchanged(list(self._todo.values()))
        self._wake_others()
        if self._todo:
            major = (await self._api.server()).major
            try:
                await self._register_all(list(self._todo.values()), major)
            finally:
                self._wake_others()
        await self._dropper.drop_all()

    def _wake_others(self) -> None:
        """Wake the poller and the refresher if a deployment got its id.

        Not at every retry: the poll that this starts would collide with the registrar's next write, and a server on
        SQLite refuses one of the two.
        """
        if self._unannounced:
            self._unannounced = False
            self._wakes.poll_now()
            self._wakes.refresh.set()

    def _registrations(self) -> dict[tuple[str, str], Registration]:
        """Return the journal's registrations by flow and name, by which the API distinguishes deployments."""
        return {(one.flow, one.name): one for one in self._journal.registrations(self._url)}

    async def _settle_unchanged(self, todo: list[Deployment]) -> None:
        """Settle the deployments that were last registered exactly as wanted now, without a request."""
        cached = await self._inspector.cached([one for one in todo if key_of(one) not in self._afresh])
        known = self._registrations()
        for deployment in todo:
            if self._todo.get(key_of(deployment)) is not deployment:
                continue  # a reload removed or replaced the deployment meanwhile
            inspection = cached.get(key_of(deployment))
            before = known.get((inspection.flow_name, deployment.name)) if inspection is not None else None
            if before is None or inspection is None or before.paused:
                continue
            body = deployment_body(deployment, inspection, major=before.major)
            if not isinstance(body, Problem) and deployment_fingerprint(body, self._url) == before.fingerprint:
                self._settle(deployment, before, inspection.flow_name)

    async def _register_all(self, todo: list[Deployment], major: int) -> None:
        known = self._registrations()
        findings = await self._inspector.inspect(todo, afresh=self._afresh)
        self._afresh -= findings.keys()  # a retry after an outage takes them from the cache
        failures: list[ApiAway] = []
        for deployment in todo:
            key = key_of(deployment)
            if self._todo.get(key) is not deployment:
                continue  # removed or replaced by a reload during the inspection
            try:
                await self._register_or_fail(deployment, findings[key], major, known)
            except ApiAway as error:  # the answer about one deployment may be no use; the others must not wait for it
                failures.append(error)
                if not error.answered or len(failures) > _FAILURES_PER_ROUND:
                    break
        if failures:
            raise failures[0]

    async def _register_or_fail(
        self,
        deployment: Deployment,
        finding: InspectionResult,
        major: int,
        known: Mapping[tuple[str, str], Registration],
    ) -> None:
        """Register one deployment, or note why it cannot be. Raises ApiAway, ApiDenied or JournalError."""
        if isinstance(finding, InspectionFailure):
            return self._fail(deployment, finding.message)
        try:
            with self._contained.item(f"deployment {deployment.name}") as item:
                await self._register(deployment, finding, major, known.get((finding.flow_name, deployment.name)))
        except ApiRejected as error:
            return self._fail(deployment, self._rejection(deployment, error))
        if item.why is not None:
            self._fail(deployment, f"cannot register the deployment: {item.why}")
        return None

    async def _register(
        self, deployment: Deployment, inspection: Inspection, major: int, before: Registration | None
    ) -> None:
        full_name = f"{inspection.flow_name}/{deployment.name}"
        rival = self._registry.other_with(inspection.flow_name, deployment.name, than=key_of(deployment))
        if rival is not None:
            return self._fail(deployment, _double_words(full_name, deployment, rival.deployment), double=True)
        if deployment.flow_name not in (None, inspection.flow_name):
            declared = deployment.flow_name
            return self._fail(deployment, f"flow_name is {declared}, but the code says {inspection.flow_name}")
        body = deployment_body(deployment, inspection, major=major)
        if isinstance(body, Problem):
            return self._fail(deployment, body.message)
        fingerprint = deployment_fingerprint(body, self._url)
        if before is not None and not before.paused and before.fingerprint == fingerprint:
            return self._settle(deployment, before, inspection.flow_name)
        flow_id = await self._api.ensure_flow(inspection.flow_name, ())
        info = await self._api.apply_deployment(
            body, flow_id=flow_id, paused=_paused(deployment, before), sent=_sent_schedules(before)
        )
        registration = Registration(
            url=self._url,
            flow=inspection.flow_name,
            name=deployment.name,
            deployment_id=info.id,
            fingerprint=fingerprint,
            major=major,
            deployment=deployment,
            schedule_ids=info.schedule_ids,
        )
        self._journal.save_registration(registration)
        self._log.info("registered", deployment=full_name, id=info.id)
        entry = self._registry.get(key_of(deployment))
        self._settle(deployment, registration, inspection.flow_name, paused=info.paused)
        self._drop_renamed(registration, entry.deployment_id if entry is not None else None)

    def _drop_renamed(self, registered: Registration, old_id: str | None) -> None:
        """Drop the deployment under the flow's old name, whose schedules would go on creating runs."""
        for one in self._journal.registrations(self._url):
            was_this = one.deployment_id == old_id or key_of(one.deployment) == key_of(registered.deployment)
            if was_this and one.flow != registered.flow:
                self._dropper.add(one)

    def _settle(self, deployment: Deployment, known: Registration, flow: str, *, paused: bool | None = None) -> None:
        """Note in registry and journal that the API has the deployment as wanted."""
        entry = self._registry.get(key := key_of(deployment))
        if entry is None:
            return
        self._todo.pop(key, None)
        self._unannounced = True
        paused = entry.paused if paused is None else paused
        problem = entry.deployment.problem
        self._registry.put(
            replace(
                entry,
                flow=flow,
                deployment_id=known.deployment_id,
                paused=paused,
                problem=problem,
                double=False,
            )
        )
        if differs(known.deployment, deployment) or known.deployment.place != deployment.place:
            self._journal.save_registration(replace(known, deployment=deployment))

    def _rejection(self, deployment: Deployment, error: ApiRejected) -> str:
        """Say why the API rejects the deployment; one whose work pool is missing is registered when the pool exists."""
        if deployment.work_pool is None or error.status != HTTPStatus.NOT_FOUND:
            return f"the API rejects the deployment: {error}"
        self._without_pool[key_of(deployment)] = deployment
        pool = deployment.work_pool
        return f"there is no work pool {pool!r}; create it (runnerctl pool create {pool}), or name another"

    def retry_without_pool(self) -> None:
        """Register the deployments whose work pool was missing; nothing without any."""
        waiting, self._without_pool = self._without_pool, {}
        for key, deployment in waiting.items():
            entry = self._registry.get(key)
            if entry is not None and entry.deployment is deployment:
                self._todo[key] = deployment
                self._work.set()

    def _fail(self, deployment: Deployment, why: str, *, double: bool = False) -> None:
        """Log and note why the deployment cannot be registered; an earlier registration stays in use."""
        entry = self._registry.get(key := key_of(deployment))
        if entry is None:
            return
        self._todo.pop(key, None)
        where = {"deployment": deployment.name, "at": deployment.place}
        if entry.problem != why:
            self._log.warning("cannot register a deployment", **where, why=why, alert=Alert.REGISTER_FAILED)
        self._registry.put(replace(entry, problem=why, double=double))

    def problems(self) -> tuple[Problem, ...]:
        """Return why deployments cannot be registered; problems of their files are reported by the configuration."""
        return tuple(
            Problem(message=entry.problem, place=entry.deployment.place, deployment=entry.deployment.name)
            for entry in self._registry.entries()
            if entry.problem is not None and not entry.invalid
        )

    def inspect_again(self, deployments: Iterable[Deployment]) -> None:
        """Inspect the flows of these deployments again, and register what has changed.

        Doubles are tried again too: the flow of the one that stood first may have another name now.
        """
        doubles = [entry.deployment for entry in self._registry.entries() if entry.double]
        for deployment in (*deployments, *doubles):
            entry = self._registry.get(key_of(deployment))
            if entry is not None:
                self._todo[key_of(deployment)] = entry.deployment
        if self._todo:
            self.settled.clear()
            self._work.set()

    # --- deletions in the API ---------------------------------------------------------------------------------------

    def register_again(self, deployment_ids: set[str]) -> None:
        """Register again the deployments that were deleted in the API, because the files still declare them."""
        for one in self._journal.registrations(self._url):
            if one.deployment_id in deployment_ids:
                self._journal.drop_registration(one)
        for deployment_id in deployment_ids:
            entry = self._registry.by_id(deployment_id)
            if entry is not None:
                self._log.warning("a deployment was deleted in the API; registering it again", name=entry.full_name)
                self._registry.put(replace(entry, deployment_id=None))
                self._todo[key_of(entry.deployment)] = entry.deployment
        self.settled.clear()
        self._work.set()


def _paused(deployment: Deployment, before: Registration | None) -> bool | None:
    """What the API is told; None for a deployment that the file leaves as it is in Prefect.

    It is resumed where this host or the file's last version had paused it, and where this host takes it over.
    """
    if deployment.paused is not None:
        return deployment.paused
    return False if before is None or before.paused or before.deployment.paused else None


def _sent_schedules(before: Registration | None) -> list[SentSchedule]:
    """The schedules that this host sent last."""
    if before is None:
        return []
    bodies = schedule_bodies(before.deployment, major=before.major)
    if before.paused and before.major < 3 and not before.schedule_ids:
        # Earlier versions paused by a request that, in 2.20, also switched the schedule off.
        bodies = [{**body, "active": False} for body in bodies]
    ids = before.schedule_ids if len(before.schedule_ids) == len(bodies) else (None,) * len(bodies)
    return [SentSchedule(known, body) for known, body in zip(ids, bodies, strict=True)]


def _double_words(full_name: str, deployment: Deployment, first: Deployment) -> str:
    return (
        f"cannot register the deployment {full_name} of {deployment.place}: {first.place} declares the same flow and"
        " name, and stays in force; rename or remove one"
    )
