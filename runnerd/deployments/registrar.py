"""Registers the deployments of conf.d: inspects their flows, creates or updates the deployments in the API.

Invariants: an unchanged deployment costs no request; a failure affects only its own deployment, and no deployment waits
for a slow or refused one. The requests are made by requesting.py, failures tried again as retrying.py says, and
deployments that left the files dropped by dropping.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import replace

from runnerd.core.backoff import Backoff
from runnerd.core.errors import ApiError, JournalError
from runnerd.core.place import Problem
from runnerd.core.prefect import Inspection
from runnerd.core.problems import Problems
from runnerd.core.settings import Config, Deployment, key_of
from runnerd.core.wakes import Wakes
from runnerd.deployments.dropping import Dropper
from runnerd.deployments.findings import Findings, failed_inspection
from runnerd.deployments.inspection import InspectionFailure
from runnerd.deployments.inspector import InspectionResult, Inspector
from runnerd.deployments.outcomes import Outcomes
from runnerd.deployments.planning import ConfigChanges, Planner
from runnerd.deployments.registry import Key, Registry
from runnerd.deployments.requesting import REFUSED_DELAY_MAX_S, Registered, Requests, is_registered
from runnerd.deployments.retrying import Retries
from runnerd.deployments.worklist import Begun, Worklist
from runnerd.journal.journal import Journal, Registration
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.dialect import deployment_body, deployment_fingerprint
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

_LOOP = "register"
_ROUND_BOUND_S = 3600.0  # the longest time without a beat: comparing and dropping thousands takes long


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
        self._tasks_contained = Containment(log=ambient.log, loop=_LOOP)
        self._pulse, self._backoff = ambient.pulse, ambient.backoff
        self._wakes = wakes
        problems.register(self.problems)
        self._planner = Planner(journal=journal, registry=registry, url=url)
        self._requests = Requests(
            api=api,
            journal=journal,
            registry=registry,
            url=url,
            backoff=ambient.backoff,
            clock=ambient.clock,
            contained=self._contained,
        )
        self._retries = Retries(clock=ambient.clock)
        self._outcomes = Outcomes(registry=registry, journal=journal, log=ambient.log)
        self.flaws = self._outcomes.flaws  # what is wrong with deployments that are registered all the same
        problems.register(self.flaws)
        self._worklist = Worklist()
        self._registering = 0
        self._dropper = Dropper(
            api=api,
            journal=journal,
            registry=registry,
            worklist=self._worklist,
            lock_of=self._requests.lock_of,
            url=url,
            log=ambient.log,
            clock=ambient.clock,
        )
        self.held_drops = self._dropper.held  # why deployments that left the files cannot be dropped before another
        self._unannounced = False  # a deployment got its id since the poller and the refresher were last woken
        self.settled = self._worklist.settled  # set while every wanted deployment is registered or has failed

    def plan(self, config: Config, *, inspect: bool = False) -> ConfigChanges:
        """Put the configuration's deployments into the registry now, and have `run` register them.

        With `inspect`, flows are inspected again for which nothing seems to have changed.
        """
        planned = self._planner.plan(config)
        self._worklist.replace(planned.todo, inspect=inspect)
        self._retries.clear()
        self._dropper.plan(config, planned.registrations)
        return planned.changes

    async def run(self) -> None:
        """Register and drop what `plan` listed, for ever; retry while the API is away."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._retry_failed())
            await self._begin_and_drop()

    async def _begin_and_drop(self) -> None:
        """Begin what is listed; drop when that is registered or has failed: registering may show what has moved."""
        backoff = self._backoff()
        while True:
            self._pulse.beat(_LOOP, within_s=float("inf"))
            await self._wait_for_work()
            self._pulse.beat(_LOOP, within_s=_ROUND_BOUND_S)
            left = self._dropper.left
            try:
                with self._contained.item("a round") as item:
                    await self._begin()
                    if not self._worklist:
                        await self._dropper.drop_all()
            except (ApiError, JournalError) as error:
                self._worklist.work.set()
                if self._dropper.left < left:
                    backoff.reset()  # some requests succeed: a server on SQLite refuses one of two writes at a time
                await asyncio.sleep(self._delay_s(backoff, error))
                continue
            if item.why is not None:
                self._worklist.work.set()
                await asyncio.sleep(backoff.next_s())
                continue
            backoff = self._backoff()
            if not self._worklist and not self._worklist.work.is_set():
                self.settled.set()

    async def _wait_for_work(self) -> None:
        """Wait until something is to be begun or dropped, or to be dropped again that the API refused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None if self._worklist else self._dropper.next_due_s()):
                await self._worklist.work.wait()
        self._worklist.work.clear()

    def _delay_s(self, backoff: Backoff, error: ApiError | JournalError) -> float:
        if isinstance(error, JournalError):
            return backoff.next_s()
        refused = not self._worklist and error.may_be_own
        return backoff.next_s(error, cap_s=REFUSED_DELAY_MAX_S if refused else None)

    async def _begin(self) -> None:
        """Settle what is as it was; inspect and register the rest in tasks, which nothing waits for."""
        new = self._worklist.not_begun()
        await self._settle_unchanged(new)
        self._wake_others()
        if any(self._worklist.lists(one) for one in new):
            await self._api.server()  # an outage is waited out before code is run
            self._tasks.create_task(self._inspect(self._worklist.begin(new)))

    async def _inspect(self, begun: list[Begun]) -> None:
        """Inspect the flows, and begin to register the deployments in their order."""
        deployments, findings = [one.deployment for one in begun], Findings(begun)

        def take(found: Mapping[Key, InspectionResult]) -> None:
            self._worklist.afresh -= found.keys()
            self._requests.refresh()  # the whole journal is not read anew after each process
            for one, finding in findings.add(found):
                self._take_inspected(one, finding)

        with self._tasks_contained.item("inspections") as item:
            self._requests.registrations()
            await self._inspector.inspect(deployments, afresh=self._worklist.afresh, on_found=take)
        for one, finding in findings.rest(failed_inspection(item.why)):
            self._take_inspected(one, finding)

    def _take_inspected(self, begun: Begun, finding: InspectionResult) -> None:
        """Begin to register; a flow whose import is slow is first inspected alone."""
        if isinstance(finding, InspectionFailure) and finding.kind == "slow":
            self._tasks.create_task(self._inspect_alone(begun))
        else:
            self._take_finding(begun, finding)

    async def _inspect_alone(self, begun: Begun) -> None:
        self._worklist.note_alone(begun, alone=True)
        with self._tasks_contained.item(f"inspection of {begun.deployment.name}") as item:
            finding = await self._inspector.inspect_alone(begun.deployment)
            self._requests.registrations()
        if item.why is not None:
            finding = failed_inspection(item.why)
        self._worklist.note_alone(begun, alone=False)
        self._take_finding(begun, finding)

    def _take_finding(self, begun: Begun, finding: InspectionResult) -> None:
        if not self._worklist.is_current(begun):
            return
        if isinstance(finding, InspectionFailure):
            self.fail(begun.deployment, finding.message, again=True)
            return
        # Before the requests: the registration that they renew must not be dropped meanwhile.
        self._outcomes.note_flow(begun.deployment, finding.flow_name)
        self._registering += 1
        self._tasks.create_task(self._register(begun, finding))

    async def _register(self, begun: Begun, inspection: Inspection) -> None:
        deployment = begun.deployment
        done = await self._requests.register(deployment, inspection, wanted=lambda: self._worklist.is_current(begun))
        with self._tasks_contained.item(f"registration of {deployment.name}"):
            if isinstance(done, Registered):
                self._take_registered(begun, inspection, done)
            elif done is not None and self._worklist.is_current(begun):
                self.fail(deployment, done.why, double=done.double, again=done.by_api)
        self._registering -= 1
        if self._dropper.left:
            self._worklist.work.set()
        if not self._registering:
            self._wake_others()

    def _take_registered(self, begun: Begun, inspection: Inspection, done: Registered) -> None:
        registration = done.registration
        entry = self._registry.get(key_of(begun.deployment))
        if done.paused is not None:
            full_name = f"{inspection.flow_name}/{registration.name}"
            self._log.info("registered", deployment=full_name, id=registration.deployment_id)
        if self._worklist.is_current(begun):
            self._settle(begun.deployment, done, inspection)
        if entry is None:
            self._dropper.add(registration)  # removed by a reload during the request
        elif done.paused is not None:
            self._drop_renamed(registration, entry.deployment_id)

    async def _retry_failed(self) -> None:
        """Try again, for ever, what failed for a reason that may pass; `settled` stays set meanwhile."""
        while True:
            begun = self._worklist.failed(await self._retries.due())
            if begun:
                self._tasks.create_task(self._inspect(begun))

    def _wake_others(self) -> None:
        """Wake the poller and the refresher if a deployment got its id.

        Not at every retry: the poll would collide with the next write, of which a server on SQLite refuses one.
        """
        if self._unannounced:
            self._unannounced = False
            self._wakes.poll_now()
            self._wakes.refresh.set()

    async def _settle_unchanged(self, todo: list[Deployment]) -> None:
        """Settle the deployments that were last registered exactly as wanted now, without a request."""
        cached = await self._inspector.cached([one for one in todo if key_of(one) not in self._worklist.afresh])
        known = self._requests.registrations()
        for deployment in todo:
            if not self._worklist.lists(deployment):
                continue  # a reload removed or replaced the deployment meanwhile
            inspection = cached.get(key_of(deployment))
            before = known.get((inspection.flow_name, deployment.name)) if inspection is not None else None
            if before is None or inspection is None:
                continue
            body = deployment_body(deployment, inspection, major=before.major)
            if isinstance(body, Problem):
                continue
            if is_registered(before, deployment, deployment_fingerprint(body, self._url)):
                self._settle(deployment, Registered(registration=before), inspection)

    def _drop_renamed(self, registered: Registration, old_id: str | None) -> None:
        """Drop the deployment under the flow's old name, whose schedules would go on creating runs."""
        key = key_of(registered.deployment)
        for one in self._requests.known():
            if one.flow != registered.flow and (one.deployment_id == old_id or key_of(one.deployment) == key):
                self._dropper.add(one)

    def _settle(self, deployment: Deployment, done: Registered, inspection: Inspection) -> None:
        """Note that the API has the deployment as wanted."""
        key, known = key_of(deployment), done.registration
        entry = self._registry.get(key)
        self._worklist.take_off(key)
        (self._retries.add if done.again else self._retries.forget)(key)
        self._unannounced = True
        if self._outcomes.note_registered(deployment, known, inspection, paused=done.paused, flaws=done.flaws):
            self._list_doubles(deployment.name)
        if entry is not None and entry.deployment_id not in (None, known.deployment_id):
            self._drop_renamed(known, entry.deployment_id)  # it was renamed before; this time nothing was requested

    def fail(self, deployment: Deployment, why: str, *, double: bool = False, again: bool = False) -> None:
        """Note why the deployment cannot be registered; with `again`, it is tried again by itself."""
        self._worklist.take_off(key_of(deployment))
        if again:
            self._retries.add(key_of(deployment))
        self._outcomes.note_failure(deployment, why, double=double)

    def problems(self) -> tuple[Problem, ...]:
        """Return why deployments cannot be registered, or dropped before another one is registered."""
        return (*self._outcomes.problems(), *self.held_drops())

    def inspect_again(self, deployments: Iterable[Deployment]) -> None:
        """Inspect the flows of these deployments again, and register what has changed.

        Doubles are tried again too: the flow of the one that stood first may have another name now.
        """
        self._list_doubles()
        entries = [self._registry.get(key_of(deployment)) for deployment in deployments]
        self._worklist.add(entry.deployment for entry in entries if entry is not None)

    def _list_doubles(self, name: str | None = None) -> None:
        doubles = [entry.deployment for entry in self._registry.entries() if entry.double]
        self._worklist.add(one for one in doubles if name in (None, one.name))

    def pending(self) -> Set[Key]:
        """Return the keys of the deployments that will soon be inspected and registered as they are now."""
        return self._worklist.pending()

    def unsettled(self) -> list[str]:
        """Name the deployments that are neither registered nor have failed."""
        return self._worklist.names()

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
                self._worklist.add([entry.deployment])
