"""Registers one deployment in the API, whose flow has been inspected.

Invariants: at most four are registered at a time, and one after the other those that the API takes for one; what the
server refuses now and then is repeated alone, and what it goes on refusing becomes a refusal; while the server does not
answer at all, everything waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from runnerd.core.backoff import Backoff, Patience
from runnerd.core.errors import ApiAway, ApiError, ApiRejected, JournalError, RunnerdError
from runnerd.core.place import Problem
from runnerd.core.prefect import Inspection
from runnerd.core.settings import Deployment, key_of
from runnerd.deployments.absences import Absences
from runnerd.deployments.places import AT_ONCE_MAX, Places
from runnerd.deployments.registry import Key, Registry
from runnerd.deployments.triggers import Triggers
from runnerd.journal.journal import Journal, Registration
from runnerd.prefect_api.answers import ServerInfo
from runnerd.prefect_api.automations import digest_triggers
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.dialect import (
    deployment_body,
    deployment_fingerprint,
    schedule_bodies,
    why_no_deployments,
)
from runnerd.prefect_api.schedule_changes import SentSchedule
from runnerd.system.containment import Containment

REFUSED_IN_A_ROW = 2 * AT_ONCE_MAX  # after that many it is not one deployment, but the server
REFUSED_DELAY_MAX_S = 5.0  # of one deployment that the server refuses, while it accepts others

Registrations = Mapping[tuple[str, str], Registration]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What the API has now; `paused` is None where nothing had to be asked.

    `flaws`: what is wrong although it is registered; `again`: another time that may be otherwise.
    """

    registration: Registration
    paused: bool | None = None
    flaws: tuple[Problem, ...] = ()
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the deployment cannot be registered; `by_api`: another time the API may accept it."""

    why: str
    double: bool = False
    by_api: bool = False


@dataclass(slots=True)
class _Attempt:
    """One deployment, and the patience with what the API answers about it."""

    deployment: Deployment
    inspection: Inspection
    patience: Patience


class Requests:
    """Makes the requests; what was registered is in the journal before it is returned."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        journal: Journal,
        registry: Registry,
        url: str,
        backoff: Callable[[], Backoff],
        clock: Callable[[], float],
        contained: Containment,
    ) -> None:
        self._api = api
        self._journal = journal
        self._registry = registry
        self._url = url
        self._backoff = backoff
        self._contained = contained
        self._places = Places(backoff=backoff)
        self._refused: set[Key] = set()  # whose patience was over the last time; now one more failure is enough
        self._refused_in_a_row = 0
        self._server: ServerInfo | None = None  # read again at each round and after each outage; so are the flows
        self._flow_ids: dict[str, str] = {}
        self._absences = Absences(api=api, clock=clock)
        self._triggers = Triggers(automations=api.applier.automations, backoff=backoff)
        self._names: dict[tuple[str, str], asyncio.Lock] = {}
        self._known: dict[tuple[str, str], Registration] = {}
        self._changes = -1  # of the journal's registrations that `_known` has

    def registrations(self) -> Registrations:
        """Read the journal's registrations by flow and name, by which the API distinguishes deployments."""
        self._server = None
        self._flow_ids.clear()
        self._known = {(one.flow, one.name): one for one in self._journal.registrations(self._url)}
        self._changes = self._journal.registration_changes
        return self._known

    def refresh(self) -> None:
        """Read the registrations again if anything but `register` has changed them since, as a drop does."""
        self._server = None
        if self._changes != self._journal.registration_changes:
            self.registrations()

    def known(self) -> list[Registration]:
        """Return the registrations last read, with those made since."""
        return list(self._known.values())

    def lock_of(self, flow: str, name: str) -> asyncio.Lock:
        """Return what is held while the API's deployment of this flow and name is registered, or is to be dropped."""
        return self._names.setdefault((flow, name), asyncio.Lock())

    async def register(
        self, deployment: Deployment, inspection: Inspection, *, wanted: Callable[[], bool]
    ) -> Registered | Refusal | None:
        """Register the deployment, and repeat that while the API is away or fails; None when not wanted any more.

        Once the API has answered with failures often enough, return its last answer as a refusal.
        `registrations` has been called since the journal was changed.
        """
        key = key_of(deployment)
        one = _Attempt(deployment, inspection, Patience(last=key in self._refused))
        name = (inspection.flow_name, deployment.name)
        if name not in self._known:
            self._absences.expect(*name)
        try:
            return await self._register_in_turn(one, wanted)
        finally:
            self._absences.forget(*name)

    async def _register_in_turn(self, one: _Attempt, wanted: Callable[[], bool]) -> Registered | Refusal | None:
        key, backoff = key_of(one.deployment), self._backoff()
        lock = self.lock_of(one.inspection.flow_name, one.deployment.name)
        waits = lock.locked()
        async with lock:
            if waits:
                self.registrations()  # what was waited for may have been its drop
            while wanted():
                done, error = await self._try_in_a_place(one)
                if error is None:
                    self._refused.discard(key)
                    return done
                if one.patience.over:
                    self._refused.add(key)
                    return Refusal(why=f"the API refuses the deployment: {error}", by_api=True)
                if not self._is_outage(error):
                    await asyncio.sleep(backoff.next_s(_api_error(error), cap_s=REFUSED_DELAY_MAX_S))
        return None

    async def _try_in_a_place(self, one: _Attempt) -> tuple[Registered | Refusal | None, RunnerdError | None]:
        """Try once; in an outage the place stays taken over the delay, and then the next deployment has its turn."""
        async with self._places.one() as place:
            done, error = await self._try(one)
            if error is None:
                place.reset()
                self._places.note_done()
            elif not one.patience.over and self._is_outage(error):
                self._server = None  # it may be another afterwards
                self._flow_ids.clear()
                await asyncio.sleep(place.next_s(_api_error(error)))
            elif _asks_for_later(error):
                self._places.note_refused()
            return done, error

    def _is_outage(self, error: RunnerdError) -> bool:
        """Whether the error is no matter of one deployment."""
        may_be_own = isinstance(error, ApiError) and error.may_be_own
        return not may_be_own or self._refused_in_a_row > REFUSED_IN_A_ROW

    async def _try(self, one: _Attempt) -> tuple[Registered | Refusal | None, RunnerdError | None]:
        try:
            if self._server is None:
                self._server = await self._api.server()
            done = await self._register_or_refuse(one, self._server)
        except (ApiError, JournalError) as error:
            self._refused_in_a_row += 1
            if not _asks_for_later(error):
                self._flow_ids.pop(one.inspection.flow_name, None)  # it may have been deleted
            return None, error
        self._refused_in_a_row = 0
        return done, None

    async def _register_or_refuse(self, one: _Attempt, server: ServerInfo) -> Registered | Refusal:
        try:
            with self._contained.item(f"deployment {one.deployment.name}") as item:
                return await self._register(one, server)
        except ApiRejected as error:
            return Refusal(why=_rejection(one.deployment, error), by_api=True)
        except ApiError as error:
            one.patience.note(error)
            raise
        return Refusal(why=f"cannot register the deployment: {item.why}", by_api=True)

    async def _register(self, one: _Attempt, server: ServerInfo) -> Registered | Refusal:
        deployment, inspection = one.deployment, one.inspection
        full_name = f"{inspection.flow_name}/{deployment.name}"
        rival = self._registry.other_with(inspection.flow_name, deployment.name, than=key_of(deployment))
        if rival is not None:
            return Refusal(why=_double_words(full_name, deployment, rival.deployment), double=True)
        if deployment.flow_name not in (None, inspection.flow_name):
            return Refusal(why=f"flow_name is {deployment.flow_name}, but the code says {inspection.flow_name}")
        if (why := why_no_deployments(server)) is not None:
            return Refusal(why=why, by_api=True)
        body = deployment_body(deployment, inspection, major=server.major)
        if isinstance(body, Problem):
            return Refusal(why=body.message)
        before = self._known.get((inspection.flow_name, deployment.name))
        fingerprint = deployment_fingerprint(body, self._url)
        if before is not None and is_registered(before, deployment, fingerprint):
            return Registered(registration=before)
        flow_id = await self._ensure_flow(inspection.flow_name)
        info = await self._api.applier.apply(
            body,
            flow_id=flow_id,
            paused=_paused(deployment, before),
            sent=_sent_schedules(before),
            is_missing=before is None and await self._absences.is_absent(flow_id, body.flow_name, deployment.name),
        )
        made = await self._triggers.apply(deployment, info, before)
        registration = Registration(
            url=self._url,
            flow=inspection.flow_name,
            name=deployment.name,
            deployment_id=info.id,
            fingerprint=fingerprint,
            major=server.major,
            deployment=deployment,
            schedule_ids=info.schedule_ids,
            automations=made.digest,
        )
        self._journal.save_registration(registration)
        self._changes += 1
        self._known[inspection.flow_name, deployment.name] = registration
        return Registered(registration=registration, paused=info.paused, flaws=made.flaws, again=made.again)

    async def _ensure_flow(self, name: str) -> str:
        """Return the id of the flow in the API, which is asked once per round."""
        if name not in self._flow_ids:
            flow = await self._api.applier.ensure_flow(name)
            self._flow_ids[name] = flow.id
            if flow.is_new:
                self._absences.note_new(name)
        return self._flow_ids[name]


def is_registered(before: Registration, deployment: Deployment, fingerprint: str) -> bool:
    """Whether this is what the API had last: the deployment with this fingerprint, and its automations."""
    same = before.fingerprint == fingerprint and before.automations == digest_triggers(deployment.triggers)
    return same and not before.paused


def _rejection(deployment: Deployment, error: ApiRejected) -> str:
    """Say why the API rejects the deployment; one whose work pool is missing is registered once the pool exists."""
    if deployment.work_pool is None or error.status != HTTPStatus.NOT_FOUND:
        return f"the API rejects the deployment: {error}"
    pool = deployment.work_pool
    return f"there is no work pool {pool!r}; create it (runnerctl pool create {pool}), or name another"


def _asks_for_later(error: RunnerdError) -> bool:
    return isinstance(error, ApiAway) and error.later


def _api_error(error: RunnerdError) -> ApiError | None:
    return error if isinstance(error, ApiError) else None


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
