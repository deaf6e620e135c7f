"""Takes one run of this host from its claim to its report.

Invariants: a step is on disk before it is taken, so a run can be resumed in any phase; a record is changed without an
await between reading and writing; cancelling the task detaches the run: only `SpawnerLink.stop` ends a process, and
only for a stated intent.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

from runnerd.core.errors import ApiError, ApiRejected, NotRecorded, SpawnerError
from runnerd.core.exit_words import HOST_RESTARTED, ending, start_words
from runnerd.core.machine import Event, Intent, Phase, RunRecord, advance, intend
from runnerd.core.prefect import StateType, Verdict
from runnerd.core.process import Exit, LaunchSpec
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.prepared import Prepared
from runnerd.launch.scratch import tidy_spec
from runnerd.launch.spec import hooks_key
from runnerd.launch.start_time import begun_at, hold_until_due
from runnerd.log.log import about
from runnerd.prefect_api.answers import Claim, ClaimOutcome
from runnerd.processes.protocol import Record
from runnerd.runs.claiming import UNSTARTED, claim_if_free
from runnerd.runs.commands import BeforeCommands, forget_commands
from runnerd.runs.companions import Companions
from runnerd.runs.preparing import RECORDED_AHEAD_S, Preparing, plan_start
from runnerd.runs.readiness import take_ready
from runnerd.runs.record_store import RunContext, RunRecordStore
from runnerd.runs.reporting import Reporter
from runnerd.runs.scratch import remove_scratch

_ANNOUNCE_S = 1.0
# By our intent or stop.then: the intent that Prefect's engine reads before the signal, so that it reports no crash.
_PREFECT_INTENT = {"cancel": "cancel", "timeout": "relinquish", "reschedule": "reschedule", "crash": None}


class Run:
    """Holds a run under way; `proceed` takes it from its phase to `done`."""

    def __init__(
        self, *, record: RunRecord, context: RunContext, before: RunRecord | None = None, even_if_ended: bool = False
    ) -> None:
        self._store = RunRecordStore(record=record, context=context)
        self._context = context
        self._reporter = Reporter(store=self._store, context=context)
        self._before = before  # the record of an earlier claim here, restored when this claim is lost
        self._even_if_ended = even_if_ended  # the run was requested by its id: claim it even if it has ended
        self._wake = asyncio.Event()
        self._preparing = Preparing(store=self._store, context=context, wake=self._wake)
        self._before_commands = BeforeCommands(store=self._store, context=context, wake=self._wake)
        self._resumed = record.phase is not Phase.CLAIMING  # an earlier daemon took the run to this phase
        self._kill = record.phase is Phase.KILLING  # SIGKILL at once was requested
        self._announce = False  # the API does not have the cancel yet
        self._requested: Phase | None = None  # the strongest stop that this daemon requested from the spawner
        self.done = asyncio.Event()
        self.refused: str | None = None  # why the claim was lost

    @property
    def record(self) -> RunRecord:
        return self._store.record

    # --- stopping -----------------------------------------------------------------------------------------------

    def stop(self, intent: Intent, *, now: bool = False, announce: bool = True, cause: str | None = None) -> None:
        """Begin to end this run for `intent`; the first intent wins. `now`: SIGKILL at once. Raises JournalError.

        `announce`: the cancel was requested on this host, and the API does not have it yet. `cause`: of the eviction,
        for the words of the run's end.
        """
        after = intend(self.record, intent)
        if after is not self.record:
            self._store.save(replace(after, words=cause), f"{intent} asked")
            self._announce = announce and intent is Intent.CANCEL
        self._kill = self._kill or now
        self._wake.set()

    # --- the phases of a run ------------------------------------------------------------------------------------

    async def proceed(self) -> None:
        """Take the run from its phase to `done`, remove its scratch directory and the spawner's record of it."""
        steps: dict[Phase, Callable[[], Awaitable[None]]] = {
            Phase.CLAIMING: self._claim,
            Phase.STARTING: self._start,
            Phase.RUNNING: self._watch,
            Phase.STOPPING: self._watch,
            Phase.KILLING: self._watch,
            Phase.REPORTING: self._report,
        }
        self._context.link.add_listener(self.record.id, self._wake.set)
        companions = Companions(store=self._store, context=self._context, resumed=self._resumed)
        try:
            while self.record.phase is not Phase.DONE:
                await companions.attend()
                await steps[self.record.phase]()
            await self._remove_scratch()
            await self._forget()
        finally:
            companions.cancel()
            self._context.link.remove_listener(self.record.id)
        self.done.set()

    async def _claim(self) -> None:
        def claim_once() -> Awaitable[Claim]:
            return claim_if_free(self._context.api, self.record, even_if_ended=self._even_if_ended)

        try:
            claim = await self._store.retry_while_away(claim_once)
        except ApiRejected as error:
            if self.record.intent is not Intent.CANCEL:
                return self._give_up_claim(str(error))
            # A cancel of this run was accepted here: if the claim were given up, the next offer would start the run.
            claim = await self._store.retry_always(claim_once)
        cancelled = claim.state is not None and claim.state.type is StateType.CANCELLED
        if cancelled and claim.state is not None and self.record.intent is Intent.CANCEL:
            return self._finish_cancelled(claim.state.name)
        if claim.outcome is ClaimOutcome.WON:
            if claim.state is not None and claim.state.type is StateType.CANCELLING:
                self.stop(Intent.CANCEL, announce=False)
            leased = claim.state is not None and claim.state.lease_id is not None
            return self._store.save(advance(replace(self.record, leased=leased), Event.CLAIM_WON), Event.CLAIM_WON)
        return self._give_up_claim(claim.reason or f"the run is {claim.outcome}", cancelled=cancelled)

    def _give_up_claim(self, reason: str, *, cancelled: bool = False) -> None:
        """Drop the claim. `cancelled`: the server has cancelled the run, so nobody is going to start it."""
        self.refused = reason
        state = StateType.CANCELLED if cancelled else None
        fields = {"run": self.record.id, "name": self.record.name, "deployment": self.record.deployment}
        self._context.ambient.log.info("claim lost", **fields, why=reason, state=state, about=about(self.record))
        # For those who follow the run; the journal drops the record.
        self._store.update(words=reason, ended_at=self._context.ambient.now(), api_state=state)
        self._store.discard(self._before)

    def _finish_cancelled(self, state_name: str) -> None:
        """Finish a run that was cancelled before it was claimed."""
        words, at = self.record.words or UNSTARTED, self._context.ambient.now()
        ended = replace(self.record, words=words, ended_at=at, api_state=StateType.CANCELLED, api_state_name=state_name)
        self._store.save(advance(ended, Event.CLAIM_LOST), "cancelled before the claim")

    async def _start(self) -> None:
        prepared = await self._preparing.prepare()
        self._store.update(**prepared.record_fields)
        spec = prepared.start
        if isinstance(spec, LaunchSpec) and not self._before_commands.due(prepared):
            # The record of a command that was claimed ahead of its time is written in what is left then.
            await self._preparing.wait_until_due(early_s=RECORDED_AHEAD_S + self._preparing.ahead_s)
        if self.record.intent is not None:  # also set while the launch was prepared
            return await self._finish_unstarted(why=None)
        if isinstance(spec, Unanswered):
            return await self._wait_for_answer(spec)
        if isinstance(spec, str):
            return await self._finish_unstarted(why=spec)
        if self._resumed and (ran := await self._preparing.may_have_run()) is not False:
            return self._finish_unseen() if ran else await self._finish_unstarted(why=None)
        self._store.save(plan_start(self.record, spec, prepared, boot_id=self._context.link.boot_id), "starting")
        self._resumed = False
        return await self._start_processes(spec, prepared)

    async def _start_processes(self, spec: LaunchSpec, prepared: Prepared) -> None:
        try:
            if self._before_commands.due(prepared):
                why = await self._before_commands.run(spec, prepared, now=lambda: self._kill)
                # Prepared anew: the commands may have taken long, and have changed what a start depends on.
                return self._finish(None, failure=why) if why is not None else None
            if not await self._preparing.wait_until_due(early_s=self._preparing.ahead_s):
                return await self._finish_unstarted(why=None)
            await self._spawn(spec, prepared)
        except NotRecorded as error:
            await self._preparing.wait_for_room(str(error))
        except SpawnerError as error:
            self._finish(None, failure=str(error))

    async def _spawn(self, spec: LaunchSpec, prepared: Prepared) -> None:
        if prepared.before:
            spec = replace(spec, make_directory=False)  # the first command has made it
        now = self._context.ambient.now()
        return self._note_started(await self._context.link.spawn(hold_until_due(spec, self.record, now=now)))

    async def _wait_for_answer(self, what: Unanswered) -> None:
        seen = self._context.link.record(self.record.id, self.record.attempt)
        if seen is not None:
            return self._note_started(seen)
        if not await self._preparing.wait_for_answer(what):
            await self._finish_unstarted(why=what.words)
        return None

    async def _finish_unstarted(self, *, why: str | None) -> None:
        """Finish a run that is to be ended or cannot start, unless an earlier daemon started its process."""
        await self._context.link.wait_until_connected()
        seen = self._context.link.record(self.record.id, self.record.attempt)
        if seen is not None:
            return self._note_started(seen)
        intent = self.record.intent
        cause = self.record.words if intent is Intent.EVICT else None
        words = f"{cause or _describe_intent(intent)} before it started" if intent is not None else None
        return self._finish(None, failure=why, words=words)

    def _note_started(self, seen: Record) -> None:
        if seen.error is not None:
            stage = seen.error.stage if self.record.command is not None else None
            return self._finish(None, failure=start_words(seen.error.message, stage=stage))
        user = seen.user or self.record.user
        known = replace(
            self.record,
            identity=seen.identity,
            pgid=seen.pgid,
            user=user,
            start=seen.start,
            start_problem=seen.start_problem or (self.record.start_problem if seen.start == "cold" else None),
            started_at=begun_at(self.record, seen.started_at, now=self._context.ambient.now()),
            waiting=None,
        )
        return self._store.save(advance(known, Event.STARTED), "started")

    async def _watch(self) -> None:
        """Wait for the process to end; request its stop when the run has an intent."""
        link, attempt = self._context.link, self.record.attempt
        while True:
            self._wake.clear()
            seen = link.record(self.record.id, attempt)
            if seen is not None and seen.phase == "exited":
                self._note_runtime_max(seen)
                self._store.update(receipt=seen.receipt)
                return self._finish(seen.exit, failure=seen.error.message if seen.error else None)
            if seen is None and link.connected:
                return self._finish_unseen()
            if seen is not None:
                self._note_runtime_max(seen)
            if self._kill or self.record.intent in (Intent.CANCEL, Intent.EVICT):
                await self._request_stop()
                if self._wake.is_set():
                    continue
            await self._wake.wait()

    def _note_runtime_max(self, seen: Record) -> None:
        """Save that the spawner, which enforces runtime_max also without a daemon, has stopped the run for it."""
        if seen.stop_reason == Intent.TIMEOUT and self.record.intent is None:
            self._store.save(advance(intend(self.record, Intent.TIMEOUT), Event.STOP), "runtime_max reached")

    async def _request_stop(self) -> None:
        wanted = Phase.KILLING if self._kill else Phase.STOPPING
        if self._requested in (wanted, Phase.KILLING):
            return
        # On disk before the request: a daemon that dies in between repeats the request, which changes nothing.
        self._store.step(Event.KILL if self._kill else Event.STOP)
        self._requested = wanted
        intent = self.record.intent or Intent.CANCEL
        if self._announce and not self._kill:
            await self._announce_cancel()
        timeout_s = 0.0 if self._kill else None
        prefect_intent = (
            _PREFECT_INTENT[self._context.config.settings().stop.then]
            if intent is Intent.EVICT
            else _PREFECT_INTENT.get(intent)
        )
        await self._context.link.stop(
            self.record.id, self.record.attempt, reason=intent, timeout_s=timeout_s, prefect_intent=prefect_intent
        )

    async def _announce_cancel(self) -> None:
        """Propose CANCELLING, so that the flow's process reports no crash when it is stopped.

        Both majors refuse that for a run that has ended. While the API is away, the stop does not wait for it.
        """
        self._announce = False
        cancelling = Verdict(type=StateType.CANCELLING)
        try:
            async with asyncio.timeout(_ANNOUNCE_S):
                await self._context.api.propose(self.record.id, cancelling, transition_id=str(uuid.uuid4()))
        except (ApiError, TimeoutError) as error:
            self._context.ambient.log.debug("cannot announce a cancel yet", run=self.record.id, why=str(error))

    async def _report(self) -> None:
        ready_s = await take_ready(self.record)
        if ready_s is not None:
            self._store.update(ready_s=ready_s)
        await self._reporter.report()

    def _finish_unseen(self) -> None:
        """Finish a run of which the spawner has no record: its records were lost with the boot, or removed."""
        self._finish(None, failure=None)

    def _finish(self, ended: Exit | None, *, failure: str | None, words: str | None = None) -> None:
        """Save how the run ended, now that no process is left."""
        at = ended.at if ended is not None and ended.at is not None else self._context.ambient.now()
        record = replace(self.record, exit=ended, failure=failure, ended_at=at, waiting=None)
        boot_id = record.identity.boot_id if record.identity is not None else record.boot_id
        if failure is None and boot_id not in (None, self._context.link.boot_id):
            words = HOST_RESTARTED  # no process outlives its boot, and no program recorded its exit
        if failure is not None and record.pool is not None and record.started_at is None:
            words = words or f"submission failed: {failure}"
        words = words or ending(
            ended,
            intent=record.intent,
            failure=failure,
            runtime_max_s=record.runtime_max_s,
            memory_max_bytes=record.memory_max_bytes,
            cause=record.words,  # until now; only that of an eviction is saved before the end
            receipt=record.receipt,
        )
        self._store.save(advance(replace(record, words=words), Event.EXITED), "exited")

    async def _remove_scratch(self) -> None:
        """Remove the scratch directory; until then the spawner has a record by which the next daemon can do it."""
        if self.record.scratch is None:
            return
        trouble = await remove_scratch(self.record, link=self._context.link, spec=tidy_spec(self.record))
        if trouble is not None:
            self._context.ambient.log.warning(trouble, run=self.record.id, about=about(self.record))

    async def _forget(self) -> None:
        """Have the spawner forget the run and its hooks; only after the run is done in the journal."""
        if self.record.started_at or self.record.failure:
            await self._context.link.forget(self.record.id, self.record.attempt)
        await forget_commands(self.record, link=self._context.link)
        if self.record.hook_boot is not None:
            await self._context.link.forget(hooks_key(self.record.id), self.record.attempt)


def _describe_intent(intent: Intent) -> str:
    return {Intent.CANCEL: "cancelled", Intent.TIMEOUT: "timed out", Intent.EVICT: "the host was stopped"}[intent]
