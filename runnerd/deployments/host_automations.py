"""Makes the automations of the files that belong to no deployment.

Invariants: they belong to this host (their owner has its name), so only what this host has made is deleted; unchanged
ones cost no request, also at the next start; an API that is away delays nothing but them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiAway, ApiError, ApiRejected
from runnerd.core.place import Json, Problem
from runnerd.core.problems import Problems
from runnerd.journal.journal import Journal
from runnerd.prefect_api.backoff import persist
from runnerd.prefect_api.client import PrefectApi
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

AGAIN_S = 300.0  # until a server that has no automations, or fails at these, is asked again


@dataclass(frozen=True, slots=True)
class HostAutomationsMade:
    """What is in Prefect: the owner of the automations, and a digest of them; an empty one for what is not known."""

    owner: str = ""
    digest: str = ""


class HostAutomations:
    """Makes them anew whenever the configuration in force has others."""

    def __init__(
        self, *, api: PrefectApi, config: ConfigInForce, journal: Journal, problems: Problems, ambient: Ambient
    ) -> None:
        self._api = api
        self._config = config
        self._journal = journal
        self._log = ambient.log
        self._backoff = ambient.backoff
        self._contained = Containment(log=ambient.log, loop="automations", passing=())
        self._note = f"automations at {api.url}"
        self._why: str | None = None
        self._again = False  # not where one is refused: the others, which are made anew with it, may be paused by now
        self._changed = asyncio.Event()
        config.subscribe(self._changed.set)
        problems.register(self.problems)

    async def run(self) -> None:
        """Follow the configuration for ever."""
        while True:
            self._changed.clear()
            with self._contained.item("automations") as item:
                await persist(self._match, backoff=self._backoff())
            if item.why is not None:
                self._why, self._again = item.why, True
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if self._again else None):
                    await self._changed.wait()

    def problems(self) -> list[Problem]:
        """Return what Prefect refuses of them, at the first one of the last file that has any."""
        if self._why is None:
            return []
        place = self._config.current.places.get("automations")
        return [Problem(message=f"cannot make the automations of the files: {self._why}", place=place)]

    async def _match(self) -> None:
        """Have the API hold the automations of the files. Raises ApiAway and ApiDenied that are not about these."""
        bodies = list(self._config.settings().automations.values())
        made = self._journal.note(HostAutomationsMade, self._note) or HostAutomationsMade()
        owner = f"runnerd.host.{self._config.host_name()}"
        wanted = HostAutomationsMade(owner=owner, digest=_digest(bodies))
        if made == wanted or (not bodies and not made.owner):
            self._set(None)
            return
        self._journal.save_note(self._note, HostAutomationsMade(owner=owner))  # before: what is to be deleted
        try:
            if made.owner not in ("", owner):
                await self._api.applier.automations.delete(made.owner)
            refusal = await self._api.applier.automations.replace(owner, bodies)
        except ApiError as error:
            if not error.may_be_own or (isinstance(error, ApiAway) and error.later):
                raise
            self._set(str(error), again=not isinstance(error, ApiRejected))
            return
        self._set(refusal.reason if refusal is not None else None, again=refusal is not None and refusal.absent)
        if refusal is None:
            self._journal.save_note(self._note, wanted if bodies else HostAutomationsMade())
            self._log.info("automations made", count=len(bodies))

    def _set(self, why: str | None, *, again: bool = False) -> None:
        if why is not None and why != self._why:
            self._log.warning("cannot make the automations of the files", why=why)
        self._why, self._again = why, again


def _digest(bodies: Sequence[Json]) -> str:
    return hashlib.sha256(json.dumps(bodies, sort_keys=True, default=str).encode()).hexdigest()
