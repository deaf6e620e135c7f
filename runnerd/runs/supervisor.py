"""Keeps the table of runs: claims offers within the limits, runs each claimed run, and contains the errors of one run.

Invariants: slots are counted from the table, never from a counter; an exception of one run is caught here, in one
place, and has no effect on other runs; leaving the supervisor detaches every run and ends none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runnerd.core.backoff import Backoff
from runnerd.core.errors import JournalError
from runnerd.core.guests import Guest
from runnerd.core.limits import Bucket, Caps, Claimant, PoolCaps, admit, find_holders
from runnerd.core.machine import CLAIM_UNKNOWN, Intent, Phase, RunRecord
from runnerd.core.prefect import FlowRun
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.log.alerts import Alert
from runnerd.log.log import about
from runnerd.processes.protocol import Record
from runnerd.runs.claiming import AWAITS_ITS_PROCESS, ClaimTerms, new_record
from runnerd.runs.preparing import stuck_behind
from runnerd.runs.record_store import RunContext
from runnerd.runs.refusals import Refusals
from runnerd.runs.run import Run
from runnerd.system.containment import Containment

_REVIVE_FIRST_S = 5.0
_REVIVE_CAP_S = 300.0
_COLLISION = "Deployment concurrency limit reached."  # the words of a 3.x server
_HELD = "waiting for the next poll: Prefect enforces this pool's concurrency limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """Describes the outcome of a batch of offers: which runs are claimed, and why the others are skipped.

    `held`: skipped runs that fit the limits, but were on hold; their slots stay free. `wait_s`: seconds until
    limits.start_rate allows the next start; None where that limit does not apply.
    """

    claimed: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    wait_s: float | None = None
    full: bool = False  # the host has no free slot, or the journal cannot record a claim
    full_pools: frozenset[str] = frozenset()


class Supervisor:
    """Owns all runs of this host."""

    def __init__(
        self,
        *,
        context: RunContext,
        registry: Registry,
        pool_caps: Callable[[], Mapping[str, PoolCaps]],
        tasks: asyncio.TaskGroup,
        wakes: Wakes,
    ) -> None:
        """`tasks` is entered before the first run begins; `pool_caps` are the limits of the work pools."""
        self._context = context
        self._registry = registry
        self._pool_caps = pool_caps
        self._tasks = tasks
        self._wakes = wakes
        self._clock = context.ambient.clock
        self._bucket = Bucket.filled(self._start_rate(), at=self._clock())
        self._runs: dict[str, Run] = {}
        self._unrecorded: set[str] = set()  # runs whose end could not be recorded when it was last tried
        self._refusals = Refusals(clock=context.ambient.clock)
        self._odd_runs = Containment(log=context.ambient.log, loop="claims")
        self._shepherds: set[asyncio.Task[None]] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._emptied = asyncio.Event()
        self._emptied.set()
        self.adopted = asyncio.Event()  # set once the runs of the last daemon are in the table
        self.contained = 0  # exceptions of single runs, for status and metrics
        self.draining: str | None = None  # why no run is claimed while the host drains
        self.server_cancels = True  # the server applies CANCEL_NEW to claims: from 3.x on
        self.record_problem: str | None = None  # why new runs cannot be recorded; the next offer tries again
        context.feed.subscribe(self._note_change)

    # --- the table ----------------------------------------------------------------------------------------------

    def records(self) -> list[RunRecord]:
        """Return the records of all runs that are not done."""
        return [run.record for run in self._runs.values()]

    def ids(self) -> list[str]:
        """Return the ids of all runs that are not done."""
        return list(self._runs)

    def run(self, run_id: str) -> Run | None:
        return self._runs.get(run_id)

    @property
    def emptied(self) -> asyncio.Event:
        """Event that is set while the table is empty."""
        return self._emptied

    async def wait_change(self) -> None:
        """Wait until a run's record changes."""
        changed = asyncio.get_running_loop().create_future()
        self._waiters.append(changed)
        await changed

    def _note_change(self, _record: RunRecord) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def detach(self) -> None:
        """Cancel the tasks of all runs, which leaves their processes running."""
        for task in self._shepherds:
            task.cancel()

    # --- adopting and claiming ----------------------------------------------------------------------------------

    def adopt(self, records: Iterable[RunRecord]) -> None:
        """Resume these runs of the journal, each in its phase."""
        for record in records:
            fields = {"run": record.id, "deployment": record.deployment, "phase": record.phase}
            self._context.ambient.log.info("adopted", **fields, about=about(record))
            self._begin(Run(record=record, context=self._context))

    def adopt_unknown(self, seen: Record) -> None:
        """Adopt a flow run that the spawner has and the journal lacks, so that its end is reported."""
        record = RunRecord(
            id=seen.key, name=seen.key, deployment_id=None, deployment="?", flow="?", phase=Phase.RUNNING,
            transition_id=CLAIM_UNKNOWN, created_at=seen.started_at or self._context.ambient.now(),
            attempt=seen.attempt, identity=seen.identity, pgid=seen.pgid, user=seen.user, started_at=seen.started_at,
            start=seen.start,
        )  # fmt: skip
        self._context.ambient.log.warning("adopted a run that is not in the journal", run=seen.key)
        self._begin(Run(record=record, context=self._context))

    def offer(self, offers: Sequence[FlowRun], *, hold: Collection[str] = ()) -> Offered:
        """Claim as many of these runs as the limits allow, in this order, but none of those in `hold`."""
        if self.draining is not None:
            return Offered(skipped=dict.fromkeys((run.id for run in offers), self.draining))
        now = self._clock()
        others = [run for run in offers if run.id not in self._runs]
        bound = {run.id: AWAITS_ITS_PROCESS for run in others if run.state.needs_process}
        stuck = stuck_behind(self.records(), others)
        left_out = {*bound, *stuck}
        fresh = [run for run in others if run.id not in left_out and not self._refusals.applies_to(run.id)]
        admission = admit([claimant_of(run) for run in fresh], self.slot_holders(), self.caps())
        by_id = {run.id: run for run in fresh}
        held = tuple(run_id for run_id in admission.admitted if run_id in hold)
        admitted = [run_id for run_id in admission.admitted if run_id not in hold]
        skipped = {**bound, **stuck, **admission.skipped, **dict.fromkeys(held, _HELD)}
        claimed = self._cancel_surplus([by_id[run_id] for run_id in admission.surplus], skipped)
        for run_id in admitted:
            self._bucket = self._bucket.at_rate(self._start_rate(), now)
            bucket = self._bucket.take(now)
            if bucket is None:
                left = dict.fromkeys(admitted[admitted.index(run_id) :], "limits.start_rate is reached")
                wait_s = self._bucket.wait_s(now)
                return Offered(claimed=tuple(claimed), skipped={**skipped, **left}, held=held, wait_s=wait_s)
            with self._odd_runs.item(f"run {run_id}") as item:
                recorded = self._claim(by_id[run_id], ClaimTerms())
            if item.why is not None:
                skipped[run_id] = self._leave_alone(run_id, item.why)
                continue
            if not recorded:
                left = dict.fromkeys((run.id for run in fresh), self.record_problem or "")
                return Offered(claimed=tuple(claimed), skipped=left, full=True)
            self._bucket = bucket
            claimed.append(run_id)
        return Offered(
            claimed=tuple(claimed),
            skipped=skipped,
            held=held,
            full=admission.full,
            full_pools=admission.full_pools,
        )

    def _cancel_surplus(self, surplus: Iterable[FlowRun], skipped: dict[str, str]) -> list[str]:
        """Cancel these runs as a 3.x server ends their claims; return those recorded: others are offered again."""
        claimed = []
        for run in surplus:
            with self._odd_runs.item(f"run {run.id}") as item:
                if self.cancel_offer(run, words=_COLLISION):
                    claimed.append(run.id)
            if item.why is not None:
                skipped[run.id] = self._leave_alone(run.id, item.why)
        return claimed

    def _leave_alone(self, run_id: str, why: str) -> str:
        """Leave an odd run alone for a while; return why it is skipped."""
        self._refusals.note(run_id, why)
        return f"cannot claim the run: {why}"

    def caps(self) -> Caps:
        """Return the limits in force."""
        limits = self._context.config.settings().limits
        return self._registry.caps(limits, pools=self._pool_caps(), server_cancels=self.server_cancels)

    def _start_rate(self) -> float:
        return self._context.config.settings().limits.start_rate_per_s

    def refusal_of(self, run_id: str) -> str | None:
        """Return why the API has refused the claim of a run that is therefore left alone for a while."""
        return self._refusals.reason(run_id)

    def holders_of(self, offer: FlowRun) -> tuple[str, ...]:
        """Return the ids of the runs that hold the slots of the limit that keeps this offer out."""
        return find_holders(claimant_of(offer), self.slot_holders(), self.caps())

    def slot_holders(self) -> list[Claimant]:
        """Return the live runs that hold slots."""
        return [claimant_of(record) for record in self.records() if record.holds_slot]

    def claim_now(self, offer: FlowRun, *, guest: Guest | None = None) -> bool:
        """Claim a run that was requested by its id, regardless of limits; False when it is here or not recorded."""
        return offer.id not in self._runs and self._claim(offer, ClaimTerms(even_if_ended=True, guest=guest))

    def cancel_offer(self, offer: FlowRun, *, words: str | None = None) -> bool:
        """Cancel a run in the API that is on offer, as one of this host; False when that cannot be recorded.

        `words` are the message to the API. The run is on record until the API has answered, also over restarts: no
        later offer starts it.
        """
        return offer.id not in self._runs and self._claim(offer, ClaimTerms(intent=Intent.CANCEL, words=words))

    def _claim(self, offer: FlowRun, terms: ClaimTerms) -> bool:
        """Record the claim and begin the run; where it cannot be recorded return False and do not claim."""
        try:
            # A cancel has no process: the journal is all that it needs.
            if terms.intent is None and (full := self._context.room.problem()) is not None:
                raise JournalError(full)
            before = self._context.journal.run(offer.id)
            entry, at = self._registry.by_id(offer.deployment_id), self._context.ambient.now()
            record = new_record(offer, entry, before=before, at=at, guest=terms.guest)
            record = replace(record, intent=terms.intent, words=terms.words)
            self._context.journal.save(record, "claiming")
        except JournalError as error:
            if self.record_problem is None:
                self._context.ambient.log.error("cannot claim new runs", why=str(error), alert=Alert.JOURNAL_FAILS)
            self.record_problem = str(error)
            return False
        self.record_problem = None
        self._begin(Run(record=record, context=self._context, before=before, even_if_ended=terms.even_if_ended))
        self._context.feed.publish(record)
        return True

    # --- the task of each run -----------------------------------------------------------------------------------

    def _begin(self, run: Run) -> None:
        self._runs[run.record.id] = run
        self._emptied.clear()
        task = self._tasks.create_task(self._shepherd(run), name=f"run {run.record.id}")
        self._shepherds.add(task)
        task.add_done_callback(self._shepherds.discard)

    async def _shepherd(self, run: Run) -> None:
        """Run one run to its end; the only place where unexpected exceptions of a run are caught."""
        backoff = Backoff(first_s=_REVIVE_FIRST_S, cap_s=_REVIVE_CAP_S, jitter=0.0)
        while True:
            try:
                await run.proceed()
                break
            except JournalError as error:
                # The run proceeds when the disk has room again. Its process goes on meanwhile; `status` has the cause.
                run_fields = about(run.record)
                self._context.ambient.log.error(
                    "a run waits for the journal", run=run.record.id, why=str(error), about=run_fields
                )
                backoff.reset()
                delay_s = backoff.next_s()
            except Exception:
                # A TaskGroup would otherwise cancel every other run. This one is resumed in its phase.
                self.contained += 1
                delay_s = backoff.next_s()
                more = {"in_s": delay_s, "alert": Alert.FAULT, "about": about(run.record)}
                self._context.ambient.log.exception("unexpected error in a run; resuming it", run=run.record.id, **more)
            await asyncio.sleep(delay_s)
        self._remove(run)

    def _remove(self, run: Run) -> None:
        del self._runs[run.record.id]
        self._unrecorded.discard(run.record.id)
        if run.refused is not None:
            self._refusals.note(run.record.id, run.refused)
        else:
            self._refusals.forget(run.record.id)
        if not self._runs:
            self._emptied.set()
        self._wakes.offer.set()

    # --- ending runs --------------------------------------------------------------------------------------------

    def cancel(self, run_ids: Iterable[str], *, now: bool = False, announce: bool = True) -> None:
        """Cancel these runs. `now`: SIGKILL at once. `announce`: report the cancel to the API, which lacks it."""
        for run_id in run_ids:
            run = self._runs.get(run_id)
            if run is not None:
                self._stop(run, Intent.CANCEL, now=now, announce=announce)

    def evict_all(self, *, now: bool = False, cause: str | None = None) -> None:
        """End all runs because the host stops, or for `cause`. `now`: SIGKILL at once."""
        for run in list(self._runs.values()):
            self._stop(run, Intent.EVICT, now=now, cause=cause)

    def _stop(self, run: Run, intent: Intent, *, now: bool, announce: bool = False, cause: str | None = None) -> None:
        with self._odd_runs.item(f"run {run.record.id}"):
            try:
                run.stop(intent, now=now, announce=announce, cause=cause)
                self._unrecorded.discard(run.record.id)
                if not run.record.holds_slot:
                    self._wakes.offer.set()
            except JournalError as error:
                # A full disk must not end the calling loop, and so the daemon. Polls repeat the cancels of Prefect, and
                # a drain repeats its own.
                if run.record.id not in self._unrecorded:
                    what, run_fields = "cannot record that a run is to be ended", about(run.record)
                    self._context.ambient.log.error(what, run=run.record.id, why=str(error), about=run_fields)
                self._unrecorded.add(run.record.id)


def claimant_of(run: FlowRun | RunRecord) -> Claimant:
    return Claimant(run_id=run.id, deployment_id=run.deployment_id, tags=run.tags, pool=run.pool, queue=run.queue)
