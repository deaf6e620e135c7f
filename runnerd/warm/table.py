"""Chooses the warm interpreter from which a run is forked: starts interpreters, drops them, and bounds their number.

Invariants: whatever is in doubt or goes wrong here, the run starts cold; a run waits for an interpreter no longer than
until its imports have taken half as long again as last time, which a cold start takes too; each interpreter that has
failed is started again after a delay only, or when what it imports has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Callable
from dataclasses import replace

from runnerd.config.in_force import ConfigInForce
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.place import Problem
from runnerd.core.process import ForkOf, LaunchSpec
from runnerd.core.settings import StartKind, WarmSettings
from runnerd.core.units import format_duration
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.launch.prepared import Prepared, WarmWish
from runnerd.processes.link import SpawnerLink
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment
from runnerd.warm.demand import Demand
from runnerd.warm.failures import Failures
from runnerd.warm.interpreter import Interpreter, one_line
from runnerd.warm.plan import WARM_PREFIX, Plan, interpreter_spec, make_plan
from runnerd.warm.stamps import read_stamp

RECENT_S = 30.0  # an interpreter used within this makes room for no other: else two would push each other out
REFUSALS_MAX = 3  # forks of one interpreter that fail, one after the other
_PATIENCE_FACTOR, _PATIENCE_MORE_S = 1.5, 0.5
_GIVEN_MAX = 1000  # runs whose start is awaited
_TOO_OLD = "the spawner is older than this runnerd; it is replaced when no run is left"
_NOT_READY = "the warm interpreter was not ready in time"


class WarmTable:
    """Holds the warm interpreters of this host, at most one of each plan.

    `shortage()` says how the host is short of memory; output files of interpreters are in `work_dir`.
    """

    def __init__(
        self,
        *,
        link: SpawnerLink,
        config: ConfigInForce,
        calls: BoundedCalls,
        work_dir: str,
        shortage: Callable[[], str | None],
        tasks: asyncio.TaskGroup,
        ambient: Ambient,
    ) -> None:
        """`tasks` is entered before the first run begins."""
        self._link = link
        self._config = config
        self._calls = calls
        self._work_dir = work_dir
        self._shortage = shortage
        self._tasks = tasks
        self._log, self._clock, self._now = ambient.log, ambient.clock, ambient.now
        self._contained = Containment(log=ambient.log, loop="warm starts", passing=())
        self._interpreters: dict[Plan, Interpreter] = {}
        self._lives: dict[str, asyncio.Task[None]] = {}  # by key: also those that are ending
        self._given: dict[str, Interpreter] = {}  # by the id of a run whose start is awaited
        self._closed = False
        self.demand = Demand()
        self.failures = Failures(log=ambient.log)

    # --- one run ----------------------------------------------------------------------------------------------------

    async def choose(self, prepared: Prepared) -> Prepared:
        """Name the interpreter from which the run is to be forked, if it is to be; the record says why it is not."""
        spec, wish = prepared.start, prepared.warm
        if wish is None or not isinstance(spec, LaunchSpec):
            return prepared
        chosen: ForkOf | str | None = None
        if wish.start != "cold":
            with self._contained.item(f"run {spec.key}") as item:
                chosen = await self._choose(spec, wish)
            chosen = chosen if item.why is None else f"unexpected error: {item.why}"
        why = one_line(chosen) if isinstance(chosen, str) else None
        fork_of = chosen if isinstance(chosen, ForkOf) else None
        fields = {**prepared.record_fields, "start_problem": why}
        return replace(prepared, start=replace(spec, fork_of=fork_of), record_fields=fields)

    async def _choose(self, spec: LaunchSpec, wish: WarmWish) -> ForkOf | str | None:
        """Return what the run is forked from, why it is not, or None where no interpreter is worth it."""
        settings = self._config.settings().warm
        if settings.interpreters == 0 or self._closed:
            return None
        plan = make_plan(spec, wish)
        if isinstance(plan, str):
            return plan
        now_s = self._clock()
        self.demand.note_run(plan, spec.key, at_s=now_s)
        frequent = self.demand.is_frequent(plan, at_s=now_s, idle_s=settings.idle_s)
        if wish.start == "auto" and not frequent and plan not in self._interpreters:
            return None
        found = await self.find_or_start(plan)
        return found if isinstance(found, str) else await self._take(found, run_id=spec.key)

    def foresee(self, prepared: Prepared) -> tuple[StartKind, str | None]:
        """Say how the next run that is prepared like this would start, and why; nothing is started or noted."""
        spec, wish = prepared.start, prepared.warm
        if wish is None or not isinstance(spec, LaunchSpec):
            return "cold", "no such run is forked"
        settings, hello = self._config.settings().warm, self._link.hello
        if wish.start == "cold" or settings.interpreters == 0:
            return "cold", "run.start is cold" if wish.start == "cold" else "warm.interpreters is 0"
        plan = make_plan(spec, wish)
        if isinstance(plan, str):
            return "cold", plan
        found = self._interpreters.get(plan)
        if found is not None and found.is_ready:
            return "warm", f"forked from the warm interpreter of {plan.describe()}"
        frequent = self.demand.was_needed(plan, within_s=settings.idle_s, of_s=self._clock())
        if wish.start == "auto" and not frequent and found is None:
            return "cold", f"no other such run was started within warm.idle ({format_duration(settings.idle_s)})"
        why = self.failures.failed().get(plan) or (_TOO_OLD if hello is None or not hello.forks else self._shortage())
        return ("cold", why) if why is not None else ("warm", "if a warm interpreter is ready in time")

    async def _take(self, interpreter: Interpreter, *, run_id: str) -> ForkOf | str:
        interpreter.used_s = self._clock()
        longest_s = self.demand.import_s(interpreter.plan) * _PATIENCE_FACTOR + _PATIENCE_MORE_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, interpreter.begun_s + longest_s - self._clock())):
                await interpreter.settled.wait()
        if not interpreter.is_ready:
            return self.failures.failed().get(interpreter.plan, _NOT_READY)
        interpreter.note_run(self._clock())
        self._given[run_id] = interpreter
        while len(self._given) > _GIVEN_MAX:
            del self._given[next(iter(self._given))]
        return interpreter.fork_of

    def note_record(self, record: RunRecord) -> None:
        """Learn how a run was started: an interpreter that cannot be forked is dropped, as a failed one.

        Not at the first time: what is refused may be of that run only, as a file in its directory that hides a module.
        """
        if record.id not in self._given or record.phase in (Phase.CLAIMING, Phase.STARTING):
            return
        interpreter = self._given.pop(record.id)
        if record.start == "warm":
            interpreter.refusals = 0
            self.failures.clear(interpreter.plan)
        elif record.start_problem is not None and interpreter.is_ready:
            interpreter.refusals += 1
            if interpreter.refusals >= REFUSALS_MAX:
                named = f"warm interpreter {interpreter.key} attempt {interpreter.fork_of.attempt} "
                self.drop(interpreter, why="no fork succeeds", failure=record.start_problem.removeprefix(named))

    # --- the interpreters -------------------------------------------------------------------------------------------

    def all(self) -> list[Interpreter]:
        """Return the interpreters, the one that was used longest ago first."""
        return sorted(self._interpreters.values(), key=lambda one: max(one.used_s, one.held_until_s))

    async def find_or_start(self, plan: Plan) -> Interpreter | str:
        """Return the interpreter of this plan, started from what is on disk now; or say why there is none."""
        stamp = await read_stamp(plan, calls=self._calls)
        if isinstance(stamp, Unanswered):
            return f"cannot check whether the environment has changed: {stamp}"
        found = self._interpreters.get(plan)
        if found is not None and found.stamp != stamp:
            self.drop(found, why="its environment has changed")
            found = None
        return found or self._start(plan, stamp)

    def _start(self, plan: Plan, stamp: str) -> Interpreter | str:
        now_s, hello = self._clock(), self._link.hello
        if hello is None or not hello.forks:
            return _TOO_OLD
        settings = self._config.settings().warm
        why = self.failures.reason(plan, stamp=stamp, at_s=now_s) or self._shortage()
        why = why or self._make_room(settings, at_s=now_s)
        if why is not None or self._closed:
            return why or "runnerd stops"
        key = f"{WARM_PREFIX}{uuid.uuid4()}"
        spec = interpreter_spec(plan, key=key, output=os.path.join(self._work_dir, f"{key}.log"))
        started = Interpreter(plan=plan, stamp=stamp, spec=spec, link=self._link, at_s=now_s, since=self._now())
        self._interpreters[plan] = started
        task = self._tasks.create_task(self._live(started), name=key)
        self._lives[key] = task
        task.add_done_callback(lambda _: self._lives.pop(key, None))
        self._log.info("starting a warm interpreter", interpreter=plan.describe(), key=key)
        return started

    def _make_room(self, settings: WarmSettings, *, at_s: float) -> str | None:
        """Drop the interpreter that was used longest ago where there are as many as may be; say why that cannot be."""
        if len(self._interpreters) < settings.interpreters:
            return None
        oldest = self.all()[0]
        if at_s - max(oldest.used_s, oldest.held_until_s) < RECENT_S:
            return f"all warm.interpreters ({settings.interpreters}) are in use"
        self.drop(oldest, why="another is needed, and warm.interpreters is reached")
        return None

    async def _live(self, interpreter: Interpreter) -> None:
        learning = asyncio.create_task(self._learn(interpreter), name=f"{interpreter.key} imports")
        try:
            with self._contained.item(interpreter.key) as item:
                failure = await interpreter.live()
            failure = failure if item.why is None else f"unexpected error: {item.why}"
        finally:
            learning.cancel()
        plan = interpreter.plan
        if self._interpreters.get(plan) is interpreter:
            del self._interpreters[plan]
        if failure is not None:
            self.failures.note(plan, why=failure, stamp=interpreter.stamp, at_s=self._clock())

    async def _learn(self, interpreter: Interpreter) -> None:
        await interpreter.settled.wait()
        if interpreter.state == "ready":
            self.demand.note_import(interpreter.plan, self._clock() - interpreter.begun_s)

    def drop(self, interpreter: Interpreter, *, why: str, failure: str | None = None) -> None:
        """Stop the interpreter; the next run that needs one gets another."""
        if self._interpreters.get(interpreter.plan) is interpreter:
            del self._interpreters[interpreter.plan]
        self._log.info(
            "stopping a warm interpreter", interpreter=interpreter.plan.describe(), why=why, key=interpreter.key
        )
        interpreter.stop(failure=failure)

    # --- the end ----------------------------------------------------------------------------------------------------

    def knows(self, key: str) -> bool:
        """Whether the process with this key is one of these, or of those that are ending."""
        return key in self._lives

    def detach(self) -> None:
        """Cancel the tasks of all interpreters, which leaves their processes running."""
        for task in self._lives.values():
            task.cancel()

    def close(self) -> None:
        """Start no more interpreters."""
        self._closed = True

    async def clear(self, *, why: str) -> None:
        """Stop all interpreters, and wait for their ends."""
        for interpreter in self.all():
            self.drop(interpreter, why=why)
        if self._lives:
            await asyncio.wait(set(self._lives.values()))

    def problems(self) -> list[Problem]:
        """Return which interpreters have failed, without those that another one is ready for."""
        ready = {plan for plan, one in self._interpreters.items() if one.is_ready}
        return self.failures.problems(but=ready)
