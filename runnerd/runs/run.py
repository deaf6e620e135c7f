"""One run on this host, from its claim to its report.

Invariants: a step is on disk before it is taken, so a run can be resumed in whatever phase it was left; a record is
changed without an await between reading and writing; being cancelled means detach: nothing in this file ends a process
except `SpawnerLink.stop`, and that only for a stated intent.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace

from runnerd.core.errors import ApiError, ApiRejected, SpawnerError
from runnerd.core.exit_words import HOST_RESTARTED, ending
from runnerd.core.machine import Event, Intent, Phase, RunRecord, advance, intend
from runnerd.core.prefect import StateType, Verdict
from runnerd.core.process import Exit
from runnerd.launch.prepared import Prepared
from runnerd.launch.scratch import tidy_spec
from runnerd.launch.spec import hooks_key
from runnerd.log.log import about
from runnerd.prefect_api.answers import Claim, ClaimOutcome
from runnerd.processes.protocol import Record
from runnerd.runs.claiming import claim_if_free
from runnerd.runs.lease import renew_lease
from runnerd.runs.record_store import RunContext, RunRecordStore
from runnerd.runs.reporting import Reporter
from runnerd.runs.scratch import tidy

_ANNOUNCE_S = 1.0
# What a child that listens is told before it is signalled: with it, it ends without reporting a crash of its own.
_PREFECT_INTENT = {"cancel": "cancel", "timeout": "relinquish", "reschedule": "reschedule", "crash": None}


class Run:
    """A run under way. `live` takes it from the phase it is in to done."""

    def __init__(
        self, *, record: RunRecord, context: RunContext, before: RunRecord | None = None, at_any_cost: bool = False
    ) -> None:
        self._store = RunRecordStore(record=record, context=context)
        self._context = context
        self._reporter = Reporter(store=self._store, context=context)
        self._before = before  # its record from an earlier claim here, to be put back when this claim is lost
        self._at_any_cost = at_any_cost  # claim it also where it has ended: somebody asked for this one by its id
        self._wake = asyncio.Event()
        self._resumed = record.phase is not Phase.CLAIMING  # an earlier daemon brought it this far
        self._kill = record.phase is Phase.KILLING  # SIGKILL at once was asked for
        self._announce = False  # the API is to hear that it is being cancelled
        self._asked: Phase | None = None  # the strongest stop the spawner was asked for by this process
        self.done = asyncio.Event()
        self.refused: str | None = None  # why the claim was lost

    @property
    def record(self) -> RunRecord:
        return self._store.record

    # --- asked from outside -------------------------------------------------------------------------------------

    def stop(self, intent: Intent, *, now: bool = False, announce: bool = True) -> None:
        """End this run, for this reason; `now` goes to SIGKILL without waiting. A second time changes nothing.

        `announce`: a cancel was asked for here, and the API does not know of it yet.
        """
        after = intend(self.record, intent)
        if after is not self.record:
            self._store.save(after, f"{intent} asked")
            self._announce = announce and intent is Intent.CANCEL
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
            Phase.REPORTING: self._reporter.report,
        }
        self._context.link.add_listener(self.record.id, self._wake.set)
        lease: asyncio.Task[None] | None = None
        try:
            while self.record.phase is not Phase.DONE:
                if lease is None and self.record.leased and self.record.phase in (Phase.STARTING, Phase.RUNNING):
                    api, log = self._context.api, self._context.ambient.log
                    lease = asyncio.create_task(renew_lease(self.record, api=api, log=log))
                await steps[self.record.phase]()
            await self._tidy()
            await self._forget()
        finally:
            if lease is not None:
                lease.cancel()
            self._context.link.remove_listener(self.record.id)
        self.done.set()

    async def _claim(self) -> None:
        def ask() -> Awaitable[Claim]:
            return claim_if_free(self._context.api, self.record, at_any_cost=self._at_any_cost)

        try:
            claim = await self._store.retry_while_away(ask)
        except ApiRejected as error:
            if self.record.intent is not Intent.CANCEL:
                return self._lose(str(error))
            # Its end was asked for here, and answered with yes: left to the next offer it would run after all.
            claim = await self._store.retry_always(ask)
        if claim.outcome is ClaimOutcome.WON:
            if claim.state is not None and claim.state.type is StateType.CANCELLING:
                self.stop(Intent.CANCEL, announce=False)
            leased = claim.state is not None and claim.state.lease_id is not None
            return self._store.save(advance(replace(self.record, leased=leased), Event.CLAIM_WON), Event.CLAIM_WON)
        return self._lose(claim.reason or f"the run is {claim.outcome}")

    def _lose(self, reason: str) -> None:
        self.refused = reason
        said = {"run": self.record.id, "deployment": self.record.deployment, "why": reason}
        self._context.ambient.log.info("claim lost", **said, about=about(self.record))
        self._store.discard(self._before)

    async def _start(self) -> None:
        prepared = await self._prepare() if self.record.intent is None else Prepared(start="")
        self._store.update(**prepared.record_fields)
        spec = prepared.start
        if isinstance(spec, str) or self.record.intent is not None:  # that may have come meanwhile
            return await self._do_not_start(why=str(spec) if self.record.intent is None else None)
        if self._resumed and await self._may_have_run():
            return self._lost()
        planned = replace(
            self.record,
            output=spec.output,
            user=prepared.user,
            runtime_max_s=spec.runtime_max_s,
            memory_max_bytes=spec.memory_max_bytes,
            boot_id=self._context.link.boot_id,
            scratch=spec.working_directory if spec.make_directory else None,
        )
        self._store.save(planned, "starting")
        self._resumed = False
        try:
            seen = await self._context.link.spawn(spec)
        except SpawnerError as error:
            return self._finish(None, failure=str(error))
        return self._started(seen)

    async def _prepare(self) -> Prepared:
        try:
            return await self._store.retry_while_away(lambda: self._context.launcher.prepare(self.record))
        except ApiRejected as error:
            return Prepared(start=str(error))

    async def _may_have_run(self) -> bool:
        """Whether its process may have run and gone, and the spawner's memory of it with a boot. PENDING says no."""
        await self._context.link.wait_until_connected()
        if self._context.link.record(self.record.id, self.record.attempt) is not None:
            return False  # asking for it again will tell what became of it
        found = await self._store.retry_while_away(lambda: self._context.api.read_run(self.record.id))
        return found is None or found.state.type is not StateType.PENDING

    async def _do_not_start(self, *, why: str | None) -> None:
        """It is to be ended, or cannot be started: unless a daemon that died before it heard the answer started it."""
        await self._context.link.wait_until_connected()
        seen = self._context.link.record(self.record.id, self.record.attempt)
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
        return self._store.save(advance(known, Event.STARTED), "started")

    async def _watch(self) -> None:
        """Wait for the process to end, passing on whatever was asked meanwhile."""
        link, attempt = self._context.link, self.record.attempt
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
            self._store.save(advance(intend(self.record, Intent.TIMEOUT), Event.STOP), "runtime_max reached")

    async def _ask_to_stop(self) -> None:
        wanted = Phase.KILLING if self._kill else Phase.STOPPING
        if self._asked in (wanted, Phase.KILLING):
            return
        # On disk before it is asked: a daemon that dies in between asks again, and asking twice changes nothing.
        self._store.step(Event.KILL if self._kill else Event.STOP)
        self._asked = wanted
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
        """Tell the API that it is being cancelled, so that a child that is asked to end does not make it a crash.

        A run that has ended refuses it, on both majors. Where the API is away, ending the run does not wait for it.
        """
        self._announce = False
        wish = Verdict(type=StateType.CANCELLING)
        try:
            async with asyncio.timeout(_ANNOUNCE_S):
                await self._context.api.propose(self.record.id, wish, transition_id=str(uuid.uuid4()))
        except (ApiError, TimeoutError) as error:
            self._context.ambient.log.debug(
                "the API did not hear of the cancel yet", run=self.record.id, why=str(error)
            )

    def _lost(self) -> None:
        """The spawner is there and has never heard of it: its records went with the boot, or were removed."""
        self._finish(None, failure=None)

    def _finish(self, ended: Exit | None, *, failure: str | None, words: str | None = None) -> None:
        """No process is left."""
        at = ended.at if ended is not None and ended.at is not None else self._context.ambient.now()
        record = replace(self.record, exit=ended, failure=failure, ended_at=at)
        boot_id = record.identity.boot_id if record.identity is not None else record.boot_id
        if failure is None and boot_id not in (None, self._context.link.boot_id):
            words = HOST_RESTARTED  # no process outlives its boot, and nobody was left to see how it ended
        if failure is not None and record.pool is not None and record.started_at is None:
            words = words or f"submission failed: {failure}"
        said = words or ending(
            ended,
            intent=record.intent,
            failure=failure,
            runtime_max_s=record.runtime_max_s,
            memory_max_bytes=record.memory_max_bytes,
        )
        self._store.save(advance(replace(record, words=said), Event.EXITED), "exited")

    async def _tidy(self) -> None:
        """Remove its directory. Until that is done the spawner remembers the run, and tells whoever comes after us."""
        if self.record.scratch is None:
            return
        trouble = await tidy(self.record, link=self._context.link, spec=tidy_spec(self.record))
        if trouble is not None:
            self._context.ambient.log.warning(trouble, run=self.record.id, about=about(self.record))

    async def _forget(self) -> None:
        """The spawner need not remember it any longer; only after it is done on disk."""
        if self.record.started_at or self.record.failure:
            await self._context.link.forget(self.record.id, self.record.attempt)
        if self.record.hook_boot is not None:
            await self._context.link.forget(hooks_key(self.record.id), self.record.attempt)


def _past(intent: Intent) -> str:
    return {Intent.CANCEL: "cancelled", Intent.TIMEOUT: "timed out", Intent.EVICT: "the host was stopped"}[intent]
