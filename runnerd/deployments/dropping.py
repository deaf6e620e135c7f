"""What the API has from us and no file asks for any more.

Invariants: it is paused, once, and deleted only where on_remove said so; a file that is broken now drops nothing. The
journal has it before the API is asked: a daemon that ends in between must not take one for live that it paused.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import Protocol

from runnerd.core.errors import ApiRejected
from runnerd.core.settings import Config
from runnerd.deployments.registry import Key, Registry, key_of
from runnerd.journal.journal import Journal, Registration
from runnerd.log.log import Log


class DropApi(Protocol):
    """What dropping asks of Prefect."""

    async def pause_deployment(self, deployment_id: str) -> bool: ...
    async def delete_deployment(self, deployment_id: str) -> bool: ...


class Dropper:
    """Remembers what is to be dropped until the API has heard of it, or has refused."""

    def __init__(self, *, api: DropApi, journal: Journal, registry: Registry, url: str, log: Log) -> None:
        self._api = api
        self._journal = journal
        self._registry = registry
        self._url = url
        self._log = log
        self._todo: list[Registration] = []

    @property
    def left(self) -> int:
        """How many are still to be dropped."""
        return len(self._todo)

    def plan(self, config: Config, wanted: Set[Key]) -> None:
        """Take a reading of the configuration: a file with a problem may still want what it had."""
        broken = {problem.place.file for problem in config.problems if problem.place is not None}
        self._todo = [
            one
            for one in self._journal.registrations(self._url)
            if key_of(one.deployment) not in wanted and one.deployment.place.file not in broken
        ]

    def add(self, one: Registration) -> None:
        self._todo.append(one)

    async def work_off(self) -> None:
        """Tell the API. Raises ApiError while it is away; then what is left is left for the next time."""
        for one in list(self._todo):
            try:
                if not self._wanted(one):
                    await self._drop(one)
            except ApiRejected as error:
                self._log.error("cannot drop a deployment", deployment=f"{one.flow}/{one.name}", why=str(error))
            if one in self._todo:  # the files may have been read again meanwhile
                self._todo.remove(one)

    def _wanted(self, one: Registration) -> bool:
        """It is some entry's: its code has moved, or the files want it again."""
        entry = self._registry.get(key_of(one.deployment))
        back = entry is not None and entry.deployment_id is None
        return back or self._registry.by_id(one.deployment_id) is not None

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
            self._journal.drop_registration(one)  # somebody deleted it
