"""Pauses deployments at the stop of this host, and resumes these at the next start.

Which: all of this host with stop.pause_schedules, but for those whose own pause_on_shutdown says otherwise.

Invariants: the journal has what a stop pauses before the request is sent, and no longer what it has surely not paused;
only what is in there is resumed, and of that only what is still paused. A deployment that was paused before the stop,
or resumed since, is left as it is. Deployments in work pools are never paused: other hosts may serve them. An API that
does not answer holds up no stop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from runnerd.core.backoff import Backoff
from runnerd.core.errors import ApiAway, ApiError, ApiRejected
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.journal.journal import Journal
from runnerd.prefect_api.backoff import persist
from runnerd.prefect_api.client import PrefectApi
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

PAUSE_LIMIT_S = 10.0  # for all deployments of a stop together
_AT_ONCE = 4
_AGAIN_S = 15.0  # until what a stop paused is looked for among deployments that could not be registered
_BUSY_S = 1.0  # the longest wait for a server on SQLite, which refuses one of two writes at a time


@dataclass(frozen=True, slots=True)
class PausedByStop:
    """The ids of the deployments that stops of this host have paused and no start has resumed."""

    ids: tuple[str, ...] = ()


@dataclass(slots=True)
class _Round:
    """The requests of one stop. `maybe`: those that have, or may have, taken effect."""

    todo: list[str]
    maybe: set[str]
    done: int = 0
    failure: ApiError | None = None


class StopPauses:
    """Pauses and resumes; `url` is the API's, `settled` is set while every deployment is registered or has failed."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        journal: Journal,
        registry: Registry,
        settled: asyncio.Event,
        wakes: Wakes,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._journal = journal
        self._registry = registry
        self._settled = settled
        self._wakes = wakes
        self._log = ambient.log
        self._backoff: Callable[[], Backoff] = ambient.backoff
        self._contained = Containment(log=ambient.log, loop="stop.pause_schedules", passing=())
        self._stopping = False  # a start that still resumes must not undo what a stop pauses
        self._note = f"paused by a stop at {api.url}"

    # --- the stop ---

    async def pause(self, *, unsaid: bool = True, limit_s: float = PAUSE_LIMIT_S) -> None:
        """Pause what is not paused, within `limit_s`; log what could not be.

        `unsaid` holds for each deployment that does not say itself whether a stop pauses it.
        """
        self._stopping = True
        ids, why = [one for one in self._registry.own_ids() if self._is_to_pause(one, unsaid=unsaid)], None
        if not ids:
            return
        one = _Round(todo=[], maybe=set())
        with self._contained.item("the deployments to pause") as item:
            why = await self._pause_within(limit_s, ids, one)
        why = item.why if item.why is not None else why
        if why is not None:
            words = "schedules are not paused, and go on making runs, which wait for the next start"
            self._log.warning(words, paused=one.done, of=len(ids), why=why)
        elif one.done:
            self._log.info("schedules paused until the next start", deployments=one.done)

    def _is_to_pause(self, deployment_id: str, *, unsaid: bool) -> bool:
        entry = self._registry.own(deployment_id)
        said = entry.deployment.pause_on_shutdown if entry is not None else None
        return unsaid if said is None else said

    async def _pause_within(self, limit_s: float, ids: Collection[str], one: _Round) -> str | None:
        try:
            async with asyncio.timeout(limit_s):
                return await self._pause_all(ids, one)
        except TimeoutError:
            return f"Prefect has not answered within {limit_s:g} s"
        except ApiError as error:
            return str(error)

    async def _pause_all(self, ids: Collection[str], one: _Round) -> str | None:
        """Pause these; return why not all. Raises ApiError, and TimeoutError of the caller's limit."""
        known = self._known()
        one.todo = [info.id for info in await self._api.read_deployments(list(ids)) if not info.paused]
        if not one.todo:
            return None
        wanted = list(one.todo)
        self._save((*known, *wanted))
        if not set(wanted) <= set(self._known()):
            return f"the journal cannot be written ({self._journal.problem}), so nothing would be resumed"
        try:
            await asyncio.gather(*(self._pause_some(one) for _ in range(_AT_ONCE)))
        finally:
            self._save((*known, *(each for each in wanted if each in one.maybe)))
        return str(one.failure) if one.failure is not None else None

    async def _pause_some(self, one: _Round) -> None:
        backoff = self._backoff()
        while one.todo and not _is_away(one.failure):
            deployment_id = one.todo.pop()
            one.maybe.add(deployment_id)
            try:
                await self._pause_one(deployment_id, backoff)
                one.done += 1
            except ApiError as error:
                one.failure = error
                if not (isinstance(error, ApiAway) and (error.unsure or error.answered)):
                    one.maybe.discard(deployment_id)

    async def _pause_one(self, deployment_id: str, backoff: Backoff) -> None:
        while True:
            try:
                await self._api.pause_deployment(deployment_id)
                return
            except ApiAway as error:
                if not error.later:
                    raise
                await asyncio.sleep(backoff.next_s(error, cap_s=_BUSY_S))

    # --- the start ---

    async def resume(self) -> None:
        """Resume what the last stop has paused, as soon as the API answers.

        What is not registered yet, because its file has changed or its code fails, is resumed when it is.
        """
        with self._contained.item("the deployments to resume"):
            if not self._known():
                return
            await persist(self._resume_known, backoff=self._backoff())
            while self._known() and not self._stopping:
                await self._settled.wait()
                await persist(self._resume_known, backoff=self._backoff())
                if all(entry.deployment_id is not None for entry in self._registry.entries()):
                    break
                await asyncio.sleep(_AGAIN_S)  # what failed is tried again by itself, and `settled` stays set meanwhile
            if not self._stopping:
                self._save(())  # what has left the files is paused for that

    async def _resume_known(self) -> None:
        left = [one for one in self._known() if self._registry.own(one) is None]
        mine = [one for one in self._known() if one not in left]
        resumed = 0
        infos = {info.id: info for info in await self._api.read_deployments(mine)} if mine else {}
        try:
            while mine and not self._stopping:
                info = infos.get(mine[-1])
                if info is not None and info.paused and await self._resume_one(info.id):
                    resumed += 1
                mine.pop()
        finally:
            if not self._stopping:
                self._save((*left, *mine))
            if resumed:
                self._log.info("schedules resumed that the last stop had paused", deployments=resumed)
                self._wakes.refresh.set()
                self._wakes.poll_now()

    async def _resume_one(self, deployment_id: str) -> bool:
        """Resume one that its file does not pause. Raises ApiAway and ApiDenied."""
        entry = self._registry.own(deployment_id)
        if entry is None or entry.deployment.paused:
            return False
        try:
            await self._api.resume_deployment(deployment_id)
        except ApiRejected as error:
            self._log.error("cannot resume a deployment", deployment=entry.full_name, why=str(error))
            return False
        entry = self._registry.own(deployment_id)
        if entry is not None:
            self._registry.put(replace(entry, paused=False))
        return True

    # --- the journal ---

    def _known(self) -> tuple[str, ...]:
        noted = self._journal.note(PausedByStop, self._note)
        return noted.ids if noted is not None else ()

    def _save(self, ids: Iterable[str]) -> None:
        self._journal.save_note(self._note, PausedByStop(tuple(dict.fromkeys(ids))))


def _is_away(error: ApiError | None) -> bool:
    return error is not None and not error.may_be_own
