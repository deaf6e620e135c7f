"""Drops deployments: pauses or deletes in the API what this host registered and no file of conf.d declares any more.

Invariants: a dropped deployment is paused once, and deleted only where its on_remove said so; a file with a problem
drops nothing; what a declared deployment may turn out to be is not deleted before that one is registered, and not
paused while that one is about to be, or is declared with the same code. The pause is in the journal before the request
is sent: if the daemon ends in between, the next one must not take a deployment that this host paused for an active one.
No drop is under way while a deployment of the same flow and name is registered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from runnerd.core.backoff import Backoff, Patience
from runnerd.core.errors import ApiError, ApiRejected
from runnerd.core.place import Problem
from runnerd.core.settings import Config, Deployment, key_of
from runnerd.deployments.registry import Entry, Registry
from runnerd.deployments.requesting import REFUSED_IN_A_ROW
from runnerd.deployments.triggers import Triggers
from runnerd.deployments.worklist import Worklist
from runnerd.journal.journal import Journal, Registration
from runnerd.log.log import Log
from runnerd.prefect_api.client import PrefectApi

REFUSED_AGAIN_S = 300.0  # from a request that the API refused to the next one

_Name = tuple[str, str]  # flow and name, by which the API distinguishes deployments


class Dropper:
    """Keeps the list of registrations to drop; each stays listed until the API has carried out or rejected the request.

    `url` is the API's: only what was registered there is dropped. `clock` is monotonic, in seconds. `lock_of` a flow
    and a name is held while a deployment is registered under them.
    """

    def __init__(
        self,
        *,
        api: PrefectApi,
        journal: Journal,
        registry: Registry,
        worklist: Worklist,
        lock_of: Callable[[str, str], asyncio.Lock],
        url: str,
        log: Log,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._triggers = Triggers(automations=api.applier.automations, backoff=Backoff)
        self._journal = journal
        self._registry = registry
        self._worklist = worklist
        self._lock_of = lock_of
        self._url = url
        self._log = log
        self._clock = clock
        self._todo: list[Registration] = []
        self._patience: dict[_Name, Patience] = {}  # of those whose last request failed
        self._refused: dict[_Name, float] = {}  # those whose patience is over, and when they are due again
        self._held: dict[_Name, Problem] = {}  # that wait for a declared deployment, and were logged

    @property
    def left(self) -> int:
        """The number of registrations still to drop."""
        return len(self._todo)

    def next_due_s(self) -> float | None:
        """Return the seconds until a refused request is due again; None when there is none."""
        due = [at for one in self._todo if (at := self._refused.get((one.flow, one.name))) is not None]
        return max(min(due) - self._clock(), 0.0) if due else None

    def plan(self, config: Config, wanted: Iterable[Registration]) -> None:
        """List every registration that is not `wanted`, except those of files that have a problem in `config`."""
        kept = {(one.flow, one.name) for one in wanted}
        broken = {problem.place.file for problem in config.problems if problem.place is not None}
        self._todo = [
            one
            for one in self._journal.registrations(self._url)
            if (one.flow, one.name) not in kept and one.deployment.place.file not in broken
        ]
        listed = {(one.flow, one.name) for one in self._todo}
        self._patience = {name: patience for name, patience in self._patience.items() if name in listed}
        self._refused.clear()
        self._held.clear()

    def add(self, one: Registration) -> None:
        """Add a registration to the list, in the place of an older one of the same flow and name."""
        self._todo = [other for other in self._todo if (other.flow, other.name) != (one.flow, one.name)]
        self._todo.append(one)

    def held(self) -> list[Problem]:
        """Return why registrations cannot be dropped before a declared deployment is registered."""
        return list(self._held.values())

    async def drop_all(self) -> None:
        """Drop every listed registration. Raises ApiError; what is left then is to be tried again soon.

        One that is refused holds up no other; while the API does not answer, or refuses many in a row, all wait.
        """
        failure: ApiError | None = None
        in_a_row = 0
        for one in list(self._todo):
            if not self._is_due(one):
                continue
            try:
                async with self._lock_of(one.flow, one.name):
                    await self._drop_or_log(one)
            except ApiError as error:
                in_a_row += 1
                if not error.may_be_own or in_a_row > REFUSED_IN_A_ROW:
                    raise
                failure = error if not self._note_failure(one, error) else failure
            else:
                in_a_row = 0
                self._remove(one)
        if failure is not None:
            raise failure

    def _is_due(self, one: Registration) -> bool:
        """Whether it is to be dropped now; one that is dropped, or that an entry uses, is listed no more."""
        if one not in self._todo:
            return False  # `plan` has replaced the list during a request
        if _is_dropped(one) or self._registry.by_id(one.deployment_id) is not None:
            self._remove(one)
            return False
        name = (one.flow, one.name)
        maybe = next((entry for entry in self._registry.entries() if self._waits_for(one, entry)), None)
        if maybe is not None:
            self._note_held(one, maybe)
        else:
            self._held.pop(name, None)
        if maybe is not None or self._lock_of(*name).locked():
            self._refused.pop(name, None)  # it is looked at again when that one has been registered, or has failed
            return False
        return self._refused.get(name, 0.0) <= self._clock()

    def _waits_for(self, one: Registration, entry: Entry) -> bool:
        """Whether it is to be dropped only when the entry has been registered.

        A wrong pause is undone by that registration, so a pause waits for no entry that only has the same name, which
        many have: without a name of its own a deployment has the host's.
        """
        if not _may_be(entry, one):
            return False
        undone = one.deployment.on_remove != "delete" and (entry.flow or entry.deployment.flow_name) is None
        return not undone or self._worklist.lists(entry.deployment) or _same_code(entry.deployment, one.deployment)

    def _note_held(self, one: Registration, maybe: Entry) -> None:
        name, full_name = (one.flow, one.name), f"{one.flow}/{one.name}"
        if name not in self._held:
            why = f"{maybe.deployment.place} declares a deployment of this name, which is not registered yet"
            self._log.warning("a deployment is not dropped yet", deployment=full_name, why=why)
        message = (
            f"cannot {one.deployment.on_remove} the deployment {full_name}, which left the files: the one declared here"
            " has its name and is not registered yet, so it may be the same; fix this one, or give it a name or a"
            " flow_name of its own"
        )
        self._held[name] = Problem(message=message, place=maybe.deployment.place, deployment=full_name)

    def _remove(self, one: Registration) -> None:
        name = (one.flow, one.name)
        self._patience.pop(name, None)
        self._refused.pop(name, None)
        self._held.pop(name, None)
        if one in self._todo:
            self._todo.remove(one)

    def _note_failure(self, one: Registration, error: ApiError) -> bool:
        """Note that the API answered with a failure; return whether it refuses the request, which then waits long.

        The others have their turn before this one.
        """
        name = (one.flow, one.name)
        patience = self._patience.setdefault(name, Patience())
        was_over = patience.over
        patience.note(error)
        if one in self._todo:
            self._todo.remove(one)
            self._todo.append(one)
        if patience.over:
            self._refused[name] = self._clock() + REFUSED_AGAIN_S
            if not was_over:
                self._log_refusal(one, error)
        return patience.over

    async def _drop_or_log(self, one: Registration) -> None:
        try:
            await self._drop(one)
        except ApiRejected as error:
            self._log_refusal(one, error)

    def _log_refusal(self, one: Registration, error: ApiError) -> None:
        self._log.error("cannot drop a deployment", deployment=f"{one.flow}/{one.name}", why=str(error))

    async def _drop(self, one: Registration) -> None:
        if one.deployment.on_remove == "delete":
            await self._api.delete_deployment(one.deployment_id)
            await self._triggers.drop(one)
            self._journal.drop_registration(one)
        else:
            await self._pause(one)
        self._log.info("dropped", deployment=f"{one.flow}/{one.name}", then=one.deployment.on_remove)

    async def _pause(self, one: Registration) -> None:
        self._journal.save_registration(replace(one, paused=True, pausing=True))
        is_there = await self._api.pause_deployment(one.deployment_id)
        await self._triggers.drop(one)
        if is_there:
            self._journal.save_registration(replace(one, paused=True, pausing=False, automations=""))
        else:
            self._journal.drop_registration(one)  # 404: the deployment was deleted in the API


def _is_dropped(one: Registration) -> bool:
    return one.deployment.on_remove != "delete" and one.paused and not one.pausing


def _may_be(entry: Entry, one: Registration) -> bool:
    """Whether an entry without an id may be registered as this very deployment: its flow is the same, or not known."""
    if entry.deployment_id is not None:
        return False
    if key_of(entry.deployment) == key_of(one.deployment):
        return True
    flow = entry.flow or entry.deployment.flow_name
    return entry.deployment.name == one.name and flow in (None, one.flow)


def _same_code(one: Deployment, other: Deployment) -> bool:
    """Whether they have one entrypoint, or one name of its file, which code that was moved mostly keeps."""
    return key_of(one) == key_of(other) or _file_name(one) == _file_name(other)


def _file_name(deployment: Deployment) -> str:
    return deployment.entrypoint.rpartition(":")[0].rpartition("/")[2]
