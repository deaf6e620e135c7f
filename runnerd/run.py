"""One run on this host, from its claim to its report.

Invariants: a step is on disk before it is taken, so a run can be resumed in whatever phase it was left; a record is
changed here only, without an await between reading and writing; being cancelled means detach: nothing in this file
ends a process except `SpawnerLink.stop`, and that only for a stated intent.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from runnerd.backoff import Backoff, persist
from runnerd.errors import ApiRejected, SpawnerError
from runnerd.journal import Journal
from runnerd.link import SpawnerLink
from runnerd.logs import Log
from runnerd.machine import Decision, Event, Intent, Phase, RunRecord, Settlement, advance, intend, settle
from runnerd.model import ApiState, Exit, FlowRun, LaunchSpec, StateType, StopThen, Verdict
from runnerd.prefect_api.answers import Answer, Claim, ClaimOutcome
from runnerd.spawner.protocol import Record
from runnerd.words import HOST_RESTARTED, ending

T = TypeVar("T")
_PROPOSALS = 5  # times a verdict is read, decided and told again when the API refuses it


class FlowRunApi(Protocol):
    """What one run asks of Prefect."""

    async def claim(self, run_id: str, *, transition_id: str) -> Claim: ...
    async def read_run(self, run_id: str) -> FlowRun | None: ...
    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str) -> Answer: ...


class Launcher(Protocol):
    """Makes the launch spec of a run; a sentence where it cannot be started."""

    def spec(self, record: RunRecord) -> LaunchSpec | str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every run is given. `changed` hears of each new record, after it is on disk."""

    api: FlowRunApi
    link: SpawnerLink
    journal: Journal
    launcher: Launcher
    log: Log
    now: Callable[[], datetime]
    backoff: Callable[[], Backoff]
    boot_id: str
    then: Callable[[], StopThen]
    changed: Callable[[RunRecord], None]


class Run:
    """A run under way. `live` takes it from the phase it is in to done."""

    def __init__(
        self, *, record: RunRecord, tools: Tools, before: RunRecord | None = None, at_any_cost: bool = False
    ) -> None:
        self.record = record
        self._tools = tools
        self._before = before  # its record from an earlier claim here, to be put back when this claim is lost
        self._at_any_cost = at_any_cost  # claim it also where it has ended: somebody asked for this one by its id
        self._wake = asyncio.Event()
        self._kill = record.phase is Phase.KILLING  # SIGKILL at once was asked for
        self._asked: Phase | None = None  # the strongest stop the spawner was asked for by this process
        self.done = asyncio.Event()
        self.refused: str | None = None  # why the claim was lost

    # --- asked from outside -------------------------------------------------------------------------------------

    def stop(self, intent: Intent, *, now: bool = False) -> None:
        """End this run, for this reason; `now` goes to SIGKILL without waiting. A second time changes nothing."""
        after = intend(self.record, intent)
        if after is not self.record:
            self._save(after, f"{intent} asked")
        self._kill = self._kill or now
        self._wake.set()

    # --- the life of a run --------------------------------------------------------------------------------------

    async def live(self) -> None:
        steps: dict[Phase, Callable[[], Awaitable[None]]] = {
            Phase.CLAIMING: self._claim,
            Phase.STARTING: self._start,
            Phase.RUNNING: self._watch,
            Phase.STOPPING: self._watch,
            Phase.KILLING: self._watch,
            Phase.REPORTING: self._report,
        }
        self._tools.link.listen(self.record.id, self._wake.set)
        try:
            while self.record.phase is not Phase.DONE:
                await steps[self.record.phase]()
            if self.record.started_at or self.record.failure:
                await self._tools.link.forget(self.record.id, self.record.attempt)
        finally:
            self._tools.link.unlisten(self.record.id)
        self.done.set()

    async def _claim(self) -> None:
        try:
            claim = await self._insist(self._claim_if_free)
        except ApiRejected as error:
            return self._lose(str(error))
        if claim.outcome is ClaimOutcome.WON:
            return self._step(Event.CLAIM_WON)
        return self._lose(claim.reason or f"the run is {claim.outcome}")

    async def _claim_if_free(self) -> Claim:
        """Propose PENDING, unless the run is not waiting to be claimed any more.

        An offer grows old while it waits for a slot, a connection or a new daemon. Meanwhile another host may have run
        it, and the server would let us have it again: it guards a claim against a rival's, not against an ended run.
        """
        run_id, transition_id = self.record.id, self.record.transition_id
        found = None if self._at_any_cost else await self._tools.api.read_run(run_id)
        state = found.state if found is not None else None
        if state is not None and state.transition_id != transition_id:  # else a claim of ours whose answer was lost
            if state.type is not StateType.SCHEDULED:
                return Claim(outcome=ClaimOutcome.LOST, state=state, reason=f"the run is {state.name} already")
            if self.record.intent is Intent.EVICT:  # stop.then is for runs that were ours
                return Claim(outcome=ClaimOutcome.LOST, state=state, reason="the host was stopped before")
        return await self._tools.api.claim(run_id, transition_id=transition_id)

    def _lose(self, reason: str) -> None:
        """Not ours: nothing happened here, so nothing of it stays in the journal."""
        self.refused = reason
        self._tools.log.info("claim lost", run=self.record.id, deployment=self.record.deployment, why=reason)
        self._tools.journal.withdraw(self.record.id, self._before)
        self.record = advance(self.record, Event.CLAIM_LOST)
        self._tools.changed(self.record)

    async def _start(self) -> None:
        spec = self._tools.launcher.spec(self.record) if self.record.intent is None else None
        if not isinstance(spec, LaunchSpec):
            return await self._do_not_start(why=spec)
        user = spec.user or spec.environment.get("USER")  # without run.user, whoever runs the spawner
        planned = replace(self.record, output=spec.output, user=user, runtime_max_s=spec.runtime_max_s)
        self._save(planned, "starting")
        try:
            seen = await self._tools.link.spawn(spec)
        except SpawnerError as error:
            return self._finish(None, failure=str(error))
        return self._started(seen)

    async def _do_not_start(self, *, why: str | None) -> None:
        """It is to be ended, or cannot be started: unless a daemon that died before it heard the answer started it."""
        await self._tools.link.wait_up()
        seen = self._tools.link.record(self.record.id, self.record.attempt)
        if seen is not None:
            return self._started(seen)
        intent = self.record.intent
        words = f"{_past(intent)} before it started" if intent is not None else None
        return self._finish(None, failure=why, words=words)

    def _started(self, seen: Record) -> None:
        if seen.error is not None:
            return self._finish(None, failure=seen.error.message.removeprefix("cannot start: "))
        user = seen.user or self.record.user
        known = replace(self.record, identity=seen.identity, pgid=seen.pgid, user=user, started_at=seen.started_at)
        return self._save(advance(known, Event.STARTED), "started")

    async def _watch(self) -> None:
        """Wait for the process to end, passing on whatever was asked meanwhile."""
        link, attempt = self._tools.link, self.record.attempt
        while True:
            self._wake.clear()
            seen = link.record(self.record.id, attempt)
            if seen is not None and seen.phase == "exited":
                self._note_runtime_max(seen)
                return self._finish(seen.exit, failure=seen.error.message if seen.error else None)
            if seen is None and link.connected:
                return self._lost()
            if seen is not None:
                self._note_runtime_max(seen)
            if self._kill or self.record.intent in (Intent.CANCEL, Intent.EVICT):
                await self._ask_to_stop()
                if self._wake.is_set():
                    continue
            await self._wake.wait()

    def _note_runtime_max(self, seen: Record) -> None:
        """runtime_max is the spawner's to enforce, with or without us; we only learn of it."""
        if seen.stop_reason == Intent.TIMEOUT and self.record.intent is None:
            self._save(advance(intend(self.record, Intent.TIMEOUT), Event.STOP), "runtime_max reached")

    async def _ask_to_stop(self) -> None:
        wanted = Phase.KILLING if self._kill else Phase.STOPPING
        if self._asked in (wanted, Phase.KILLING):
            return
        # On disk before it is asked: a daemon that dies in between asks again, and asking twice changes nothing.
        self._step(Event.KILL if self._kill else Event.STOP)
        self._asked = wanted
        intent = self.record.intent or Intent.CANCEL
        await self._tools.link.stop(
            self.record.id, self.record.attempt, reason=intent, timeout_s=0.0 if self._kill else None
        )

    def _lost(self) -> None:
        """The spawner is there and has never heard of it: its records went with the boot, or were removed."""
        identity = self.record.identity
        rebooted = identity is not None and identity.boot_id != self._tools.boot_id
        self._finish(None, failure=None, words=HOST_RESTARTED if rebooted else None)

    def _finish(self, ended: Exit | None, *, failure: str | None, words: str | None = None) -> None:
        """No process is left."""
        at = ended.at if ended is not None and ended.at is not None else self._tools.now()
        record = replace(self.record, exit=ended, failure=failure, ended_at=at)
        said = words or ending(ended, intent=record.intent, failure=failure, runtime_max_s=record.runtime_max_s)
        self._save(advance(replace(record, words=said), Event.EXITED), "exited")

    async def _report(self) -> None:
        """Read, decide, tell; from the start again when the API refuses, because the run has moved on."""
        for _ in range(_PROPOSALS):
            found = await self._insist(lambda: self._tools.api.read_run(self.record.id))
            state = found.state if found is not None else None
            decision = settle(self.record, state, then=self._tools.then(), now=self._tools.now())
            if decision.settlement is Settlement.SPAWN_AGAIN:
                return await self._respawn()
            if await self._told(decision, state):
                return None
        self._tools.log.error("the API keeps refusing the verdict", run=self.record.id, words=self.record.words)
        return self._step(Event.TOLD)

    async def _told(self, decision: Decision, state: ApiState | None) -> bool:
        verdict = decision.verdict
        if verdict is None:
            self._end(state.type if state else None, state.name if state else None)
            return True
        transition_id = str(uuid.uuid4())  # one for all repeats: an answer may be lost, and telling twice is two states
        try:
            answer = await self._insist(
                lambda: self._tools.api.propose(self.record.id, verdict, transition_id=transition_id)
            )
        except ApiRejected as error:
            self._tools.log.error("the API rejects the verdict", run=self.record.id, why=str(error))
            return False
        if answer.gone:
            self._end(None, None)
        elif answer.accepted:
            self._end(verdict.type, verdict.name or verdict.type.title())
        elif answer.wait_s is not None:
            await asyncio.sleep(answer.wait_s)
        return answer.gone or answer.accepted

    def _end(self, state: StateType | None, name: str | None) -> None:
        self._save(advance(replace(self.record, api_state=state, api_state_name=name), Event.TOLD), "told")

    async def _respawn(self) -> None:
        ended = self.record.attempt
        again = replace(
            self.record, attempt=self.record.attempt + 1, respawned=True, identity=None, pgid=None,
            started_at=None, ended_at=None, exit=None, words=None,
        )  # fmt: skip
        self._save(advance(again, Event.RESPAWN), "no flow code ran; started again")
        await self._tools.link.forget(self.record.id, ended)

    # --- helpers ------------------------------------------------------------------------------------------------

    def _step(self, event: Event) -> None:
        self._save(advance(self.record, event), event)

    def _save(self, record: RunRecord, event: str) -> None:
        """On disk first, then in memory: what we act on is what a successor would find."""
        before = self.record.phase
        self._tools.journal.save(record, event)
        self.record = record
        log = self._tools.log
        if record.phase is not before or record.phase is Phase.CLAIMING:
            log.info("run", run=record.id, deployment=record.deployment, phase=record.phase, **_detail(record))
        self._tools.changed(record)

    async def _insist(self, request: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer. Raises ApiRejected when the request itself is wrong."""
        return await persist(request, backoff=self._tools.backoff())


def _past(intent: Intent) -> str:
    return {Intent.CANCEL: "cancelled", Intent.TIMEOUT: "timed out", Intent.EVICT: "the host was stopped"}[intent]


def _detail(record: RunRecord) -> dict[str, Any]:
    """What a log line of this phase adds."""
    match record.phase:
        case Phase.RUNNING:
            return {"pid": record.identity.pid if record.identity else None, "user": record.user}
        case Phase.STOPPING | Phase.KILLING:
            return {"reason": record.intent}
        case Phase.REPORTING:
            return {"exit": record.words}
        case Phase.DONE:
            return {"exit": record.words, "state": record.api_state_name}
        case _:
            return {}
