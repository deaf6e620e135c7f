"""Drops deployments: pauses or deletes in the API what this host registered and no file of conf.d declares any more.

Invariants: a dropped deployment is paused once, and deleted only where its on_remove said so; a file with a problem
drops nothing. The pause is in the journal before the request is sent: if the daemon ends in between, the next one must
not take a deployment that this host paused for an active one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from runnerd.core.errors import ApiRejected
from runnerd.core.settings import Config, key_of
from runnerd.deployments.registry import Registry
from runnerd.journal.journal import Journal, Registration
from runnerd.log.log import Log
from runnerd.prefect_api.client import PrefectApi


class Dropper:
    """Keeps the list of registrations to drop; each stays listed until the API has carried out or refused the request.

    `url` is the API's: only what was registered there is dropped.
    """

    def __init__(self, *, api: PrefectApi, journal: Journal, registry: Registry, url: str, log: Log) -> None:
        self._api = api
        self._journal = journal
        self._registry = registry
        self._url = url
        self._log = log
        self._todo: list[Registration] = []

    @property
    def left(self) -> int:
        """The number of registrations still to drop."""
        return len(self._todo)

    def plan(self, config: Config, wanted: Iterable[Registration]) -> None:
        """List every registration that is not `wanted`, except those of files that have a problem in `config`."""
        kept = {(one.flow, one.name) for one in wanted}
        broken = {problem.place.file for problem in config.problems if problem.place is not None}
        self._todo = [
            one
            for one in self._journal.registrations(self._url)
            if (one.flow, one.name) not in kept and one.deployment.place.file not in broken
        ]

    def add(self, one: Registration) -> None:
        """Add a registration to the list."""
        self._todo.append(one)

    async def drop_all(self) -> None:
        """Drop every listed registration. Raises ApiError while the API is away; the rest then stays listed."""
        for one in list(self._todo):
            try:
                if not self._wanted(one):
                    await self._drop(one)
            except ApiRejected as error:
                self._log.error("cannot drop a deployment", deployment=f"{one.flow}/{one.name}", why=str(error))
            if one in self._todo:  # `plan` may have replaced the list during the request
                self._todo.remove(one)

    def _wanted(self, one: Registration) -> bool:
        """Whether an entry uses the registration: its entrypoint has moved, or the files declare it again."""
        entry = self._registry.get(key_of(one.deployment))
        declared_again = entry is not None and entry.deployment_id is None
        return declared_again or self._registry.by_id(one.deployment_id) is not None

    async def _drop(self, one: Registration) -> None:
        if one.deployment.on_remove == "delete":
            await self._api.delete_deployment(one.deployment_id)
            self._journal.drop_registration(one)
        elif not one.paused or one.pausing:
            await self._pause(one)
        else:
            return
        self._log.info("dropped", deployment=f"{one.flow}/{one.name}", then=one.deployment.on_remove)

    async def _pause(self, one: Registration) -> None:
        self._journal.save_registration(replace(one, paused=True, pausing=True))
        if await self._api.pause_deployment(one.deployment_id):
            self._journal.save_registration(replace(one, paused=True, pausing=False))
        else:
            self._journal.drop_registration(one)  # 404: the deployment was deleted in the API
