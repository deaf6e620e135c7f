"""Waits after a reload until its deployments are registered and its work pools are asked for.

Invariant: the configuration is in force before this waits, and whatever this gives up on goes on in the background.
"""

from __future__ import annotations

import asyncio

from runnerd.core.names import some
from runnerd.core.place import Problem
from runnerd.core.prefect import ApiCondition
from runnerd.core.units import format_duration
from runnerd.daemon.served_scripts import ServedScripts
from runnerd.deployments.registrar import Registrar
from runnerd.pools.keeper import PoolKeeper
from runnerd.prefect_api.client import PrefectApi

WAIT_MAX_S = 60.0  # for flows that are inspected, and deployments that are registered
POOLS_WAIT_MAX_S = 10.0
SILENCE_MAX_S = 10.0  # an API that has not answered anything for so long is not waited for
_FIRST_S = 1.0  # what needs no answer of the API is done within this time
_CHECK_EVERY_S = 0.5
_NAMED_MAX = 5


class Settling:
    """Waits for the registrar and the work pools, no longer than an API that does not answer is worth."""

    def __init__(self, *, api: PrefectApi, registrar: Registrar, pools: PoolKeeper, scripts: ServedScripts) -> None:
        self._api = api
        self._scripts = scripts
        self._registrar = registrar
        self._pools = pools

    async def wait(self) -> tuple[Problem, ...]:
        """Wait, and return what is still under way, each as a problem; nothing when all is done."""
        done = asyncio.create_task(self._wait_for_all(), name="settling")
        try:
            why = await self._wait_for(done)
        finally:
            done.cancel()
        return () if why is None else tuple(self._describe(why))

    async def _wait_for_all(self) -> None:
        await self._scripts.wait_until_entered()
        await self._registrar.settled.wait()
        await self._pools.wait_until_asked()

    async def _wait_for(self, done: asyncio.Task[None]) -> str | None:
        """Wait until `done`, and return None, or why that is not waited for any longer."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await asyncio.wait({done}, timeout=_CHECK_EVERY_S)
            if done.done():
                return None
            waited_s = loop.time() - began
            if waited_s >= _FIRST_S and self._api.transport.traffic.silent_s >= SILENCE_MAX_S:
                return self._describe_silence()
            registered = self._registrar.settled.is_set() and not self._scripts.unread()
            limit_s = POOLS_WAIT_MAX_S if registered else WAIT_MAX_S
            if waited_s >= limit_s:
                return f"not done within {format_duration(limit_s)}"

    def _describe_silence(self) -> str:
        traffic, health = self._api.transport.traffic, self._api.health
        if health.condition is ApiCondition.OK or traffic.under_way:
            return f"Prefect at {self._api.url} has not answered for {format_duration(traffic.silent_s, units=2)}"
        return f"Prefect at {self._api.url} is {health.words}"

    def _describe(self, why: str) -> list[Problem]:
        found = []
        if unread := self._scripts.unread():
            what = f"scripts not read yet: {some(unread, most=_NAMED_MAX)}"
            found.append(Problem(message=f"{what} ({why}); reading goes on in the background; see runnerctl status"))
        if not self._registrar.settled.is_set():
            names = self._registrar.unsettled()
            unregistered = f"not registered yet: {some(names, most=_NAMED_MAX)}"
            what = unregistered if names else "removed deployments are not dropped yet"
            go_on = "inspection and registration go on in the background; see runnerctl deployments"
            found.append(Problem(message=f"{what} ({why}); {go_on}"))
        if pools := self._pools.unasked():
            what = f"work pools not asked for yet: {some(pools, most=_NAMED_MAX)}"
            found.append(Problem(message=f"{what} ({why}); runnerctl status will show their problems"))
        return found
