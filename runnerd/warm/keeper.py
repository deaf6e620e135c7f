"""Looks after the warm interpreters: drops idle, outdated and surplus ones, and starts them ahead of scheduled runs.

Invariants: nothing is started where no run has needed it and no schedule will; an interpreter that an earlier daemon
left is ended, because what it was started from is not known any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime

from runnerd.config.in_force import ConfigInForce
from runnerd.core.machine import Intent
from runnerd.core.process import LaunchSpec
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.prepared import Prepared, Upcoming
from runnerd.processes.link import SpawnerLink
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment
from runnerd.warm.interpreter import Interpreter
from runnerd.warm.plan import WARM_PREFIX, Plan, make_plan
from runnerd.warm.stamps import read_stamp
from runnerd.warm.table import WarmTable

ROUND_S = 10.0
IMPORTS_MAX_S = 300.0
_STAMPED_EVERY_S = 30.0
_LEAD_FACTOR, _LEAD_MORE_S = 2.0, 2.0
_LEAD_MAX_S = 60.0 * _LEAD_FACTOR + _LEAD_MORE_S + ROUND_S  # of the longest imports that demand.py reckons with
_AHEAD_MAX = 20
_LATE_S = 60.0  # a scheduled run that is due for longer waits for something else
_ROUND_BOUND_S = 3600.0
_STOP_S = 5.0
_LOOP = "warm interpreters"


class WarmKeeper:
    """Looks after the interpreters of the table, every ROUND_S seconds.

    `upcoming()` lists the next scheduled runs of this host, `claims()` is False while it claims none.
    """

    def __init__(
        self,
        *,
        table: WarmTable,
        link: SpawnerLink,
        config: ConfigInForce,
        calls: BoundedCalls,
        upcoming: Callable[[], Iterable[Upcoming]],
        claims: Callable[[], bool],
        shortage: Callable[[], str | None],
        ambient: Ambient,
    ) -> None:
        self._table = table
        self._link = link
        self._config = config
        self._calls = calls
        self._upcoming = upcoming
        self._claims = claims
        self._shortage = shortage
        self._clock, self._now, self._pulse = ambient.clock, ambient.now, ambient.pulse
        self._contained = Containment(log=ambient.log, loop=_LOOP, passing=())
        self._stamped_s = 0.0
        self._warmed: dict[str, datetime] = {}  # by deployment: the next run for which that is decided
        self._planned: dict[str, Plan] = {}  # by deployment: the interpreter of its last launch spec

    async def run(self) -> None:
        """Look after the interpreters for ever."""
        while True:
            self._pulse.beat(_LOOP, within_s=_ROUND_BOUND_S)
            with self._contained.item("round"):
                await self.round()
            await asyncio.sleep(ROUND_S)

    async def round(self) -> None:
        """Look after the interpreters once."""
        await self._end_strays()
        self._drop_unwanted()
        if self._clock() - self._stamped_s >= _STAMPED_EVERY_S:
            self._stamped_s = self._clock()
            for interpreter in self._table.all():
                with self._contained.item(f"check of {interpreter.key}"):
                    await self._drop_outdated(interpreter)
        self._table.failures.forget_old(at_s=self._clock())
        if self._claims() and self._config.settings().warm.interpreters > 0:
            await self._warm_ahead()

    async def _end_strays(self) -> None:
        for seen in self._link.records():
            if not seen.key.startswith(WARM_PREFIX) or self._table.knows(seen.key):
                continue
            if seen.phase == "exited":
                await self._link.forget(seen.key, seen.attempt)
            elif seen.phase == "running":
                await self._link.stop(seen.key, seen.attempt, reason=Intent.EVICT)

    def _drop_unwanted(self) -> None:
        """Drop what is idle, what imports for ever, and, one a round, what is too much for the host."""
        settings, now_s = self._config.settings().warm, self._clock()
        for interpreter in self._table.all():
            if now_s - interpreter.used_s >= settings.idle_s and now_s >= interpreter.held_until_s:
                self._table.drop(interpreter, why="idle for warm.idle")
            elif interpreter.state == "importing" and now_s - interpreter.begun_s > IMPORTS_MAX_S:
                why = f"it was not ready within {IMPORTS_MAX_S:g} s"
                self._table.drop(interpreter, why=why, failure=why)
        left = self._table.all()
        for interpreter in left[: max(0, len(left) - settings.interpreters)]:
            self._table.drop(interpreter, why="more than warm.interpreters")
        left = self._table.all()
        if left and (short := self._shortage()) is not None:
            self._table.drop(left[0], why=short)

    async def _drop_outdated(self, interpreter: Interpreter) -> None:
        """Drop the interpreter where its environment has changed; an unknown state is no change."""
        stamp = await read_stamp(interpreter.plan, calls=self._calls)
        if isinstance(stamp, str) and stamp != interpreter.stamp:
            self._table.drop(interpreter, why="its environment has changed")

    # --- ahead of scheduled runs ------------------------------------------------------------------------------------

    async def _warm_ahead(self) -> None:
        near = [one for one in self._upcoming() if self._in_s(one) <= _LEAD_MAX_S]
        names = {one.deployment for one in near}
        self._warmed = {key: at for key, at in self._warmed.items() if key in names}
        self._planned = {key: plan for key, plan in self._planned.items() if key in names}
        left = [one for one in near if self._warmed.get(one.deployment) != one.at and not self._is_early(one)]
        # Few a round: each reads files, and most share one interpreter.
        for upcoming in sorted(left, key=lambda one: one.at)[:_AHEAD_MAX]:
            with self._contained.item(f"next run of {upcoming.deployment}"):
                await self._warm_for(upcoming)

    def _in_s(self, upcoming: Upcoming) -> float:
        """Return in how many seconds the run may be started; infinity where it is late."""
        due_s = (upcoming.at - self._now()).total_seconds()
        return float("inf") if due_s < -_LATE_S else due_s - self._config.settings().api.prefetch_s

    def _is_early(self, upcoming: Upcoming) -> bool:
        """Whether it is known to be too early for the interpreter of this run."""
        plan = self._planned.get(upcoming.deployment)
        return plan is not None and self._in_s(upcoming) > self._lead_s(plan)

    async def _warm_for(self, upcoming: Upcoming) -> None:
        prepared = await upcoming.prepare()
        plan = _plan_of(prepared)
        if plan is None or prepared.warm is None:
            self._warmed[upcoming.deployment] = upcoming.at
            return
        self._planned[upcoming.deployment] = plan
        if self._is_early(upcoming):
            return
        self._warmed[upcoming.deployment] = upcoming.at
        if prepared.warm.start == "auto" and not self._is_regular(plan, upcoming):
            return
        found = await self._table.find_or_start(plan)
        if not isinstance(found, str):
            found.held_until_s = self._clock() + max(0.0, (upcoming.at - self._now()).total_seconds()) + _LATE_S

    def _lead_s(self, plan: Plan) -> float:
        return self._table.demand.import_s(plan) * _LEAD_FACTOR + _LEAD_MORE_S + ROUND_S

    def _is_regular(self, plan: Plan, upcoming: Upcoming) -> bool:
        """Whether a run needed the interpreter so shortly before that it would still be there by warm.idle."""
        due_s = self._clock() + (upcoming.at - self._now()).total_seconds()
        return self._table.demand.was_needed(plan, within_s=self._config.settings().warm.idle_s, of_s=due_s)

    # --- the end ----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop all interpreters and start no more."""
        self._table.close()
        await self._table.clear(why="runnerd stops")

    async def hand_over(self) -> None:
        """Have all interpreters stopped for the next daemon, which would not know what they were started from."""
        try:
            async with asyncio.timeout(_STOP_S):
                await self.stop()
        except TimeoutError:
            return  # the next daemon ends them


def _plan_of(prepared: Prepared) -> Plan | None:
    spec, wish = prepared.start, prepared.warm
    if not isinstance(spec, LaunchSpec) or wish is None or wish.start == "cold":
        return None
    plan = make_plan(spec, wish)
    return None if isinstance(plan, str) else plan
