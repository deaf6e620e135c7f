"""What the API wants done: due runs are offered to the supervisor, cancelling ones are cancelled.

Invariants: one poll is one request however many deployments there are; a run that is skipped stays on offer and is
tried again the moment a slot is free, without asking the API; nothing here ends because the API is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from runnerd.backoff import Backoff
from runnerd.errors import ApiAway, ApiDenied, ApiError, ApiRejected
from runnerd.lateness import LateRuns
from runnerd.limits import due
from runnerd.logs import Log
from runnerd.model import FlowRun, Settings, StateType, Verdict
from runnerd.prefect_api.answers import Answer, ServerInfo
from runnerd.pulse import Pulse
from runnerd.registry import Registry
from runnerd.supervisor import Offered, Supervisor

PAGE = 200  # the most the server gives in one answer
LEAD_S = 3.0  # a cold start costs about this long, so a run is claimed this long before it is due
_LATE_PAGES = 25  # looked through in one go when they are full of late runs
_CANCEL_INTERVAL_S = 5.0
_REQUEST_BOUND_S = 180.0  # a request, its connection and its time limit: for the watchdog


class OfferApi(Protocol):
    """What the poller asks of Prefect."""

    async def server(self) -> ServerInfo: ...
    async def scheduled_runs(
        self, *, deployment_ids: Sequence[str], before: datetime, limit: int | None
    ) -> list[FlowRun]: ...
    async def runs_of(self, run_ids: Sequence[str], *, states: Sequence[StateType]) -> list[FlowRun]: ...
    async def read_run(self, run_id: str) -> FlowRun | None: ...
    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str) -> Answer: ...


@dataclass(slots=True)
class OnOffer:
    """The runs last offered and not yet taken, soonest first, and why each of them waits."""

    runs: dict[str, FlowRun] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    full_page: bool = False
    unjudged: bool = False  # found while draining, so late.policy has not been applied


class Poller:
    """Two loops: `poll` for due runs, `watch_cancelling` for our own runs that are to be cancelled."""

    def __init__(
        self,
        *,
        api: OfferApi,
        supervisor: Supervisor,
        registry: Registry,
        settings: Callable[[], Settings],
        log: Log,
        pulse: Pulse,
        now: Callable[[], datetime],
        backoff: Callable[[], Backoff],
        new_id: Callable[[], str],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._supervisor = supervisor
        self._registry = registry
        self._settings = settings
        self._log = log
        self._pulse = pulse
        self._now = now
        self._backoff = backoff
        self._late = LateRuns(
            api=api, settings=lambda: settings().late, log=log, now=now, new_id=new_id, between=self._between
        )
        self._jitter = jitter
        self._kicked = asyncio.Event()  # ask the API now
        self._freed = asyncio.Event()  # look again at what is on offer
        self.on_offer = OnOffer()
        self._wait_s: float | None = None  # until start_rate lets the next one start
        self.polled_at: datetime | None = None
        self.unsupported: str | None = None  # why this server's runs cannot be claimed safely
        self._seen_cancelled: set[str] = set()

    def kick(self) -> None:
        """Ask the API now instead of at the next interval."""
        self._kicked.set()
        self._freed.set()

    def put_on_offer(self, run: FlowRun) -> None:
        """A run that was just created for this host: no need to ask the API for it."""
        self.on_offer.runs[run.id] = run
        self._freed.set()

    def freed(self) -> None:
        """A slot is free: what is on offer is looked at again."""
        self._freed.set()

    # --- due runs -----------------------------------------------------------------------------------------------

    async def poll(self) -> None:
        """Poll for ever."""
        backoff = self._backoff()
        while True:
            self._kicked.clear()
            self._pulse.beat("poll", within_s=_REQUEST_BOUND_S)
            try:
                await self.poll_once()
            except (ApiAway, ApiDenied, ApiRejected) as error:
                # The transport has said so once in the log and in `status`; here it only costs time.
                self._offer_again()
                await self._rest_after(backoff, error)
                continue
            backoff.reset()
            await self._rest(self._settings().api.poll_interval_s * (0.9 + 0.2 * self._jitter()))

    async def _rest_after(self, backoff: Backoff, error: ApiError) -> None:
        """Wait, unless somebody knows that it answers again."""
        self._pulse.beat("poll", within_s=3600.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff.next_s(error)):
                await self._kicked.wait()

    async def poll_once(self) -> Offered:
        """One request, and what it offers handed on."""
        ids = self._registry.ids()
        if not ids:
            self.on_offer = OnOffer()
            return Offered()
        server = await self._api.server()  # remembered; asked again only after a trouble
        self.unsupported = None if server.supported else server.why
        if not server.supported:
            return Offered()
        before = self._now() + timedelta(seconds=self._settings().api.prefetch_s)
        if self._supervisor.draining is None:  # else nobody looks: nothing is late, and nothing is on offer in time
            self._late.begin()
        for _ in range(_LATE_PAGES):
            found = await self._api.scheduled_runs(deployment_ids=ids, before=before, limit=None)
            self.polled_at = self._now()
            self.on_offer = OnOffer(full_page=len(found) >= PAGE)
            offered, more = await self._take_in(found)
            if not more:
                break
        if self.on_offer.full_page and offered.skipped and not offered.claimed:
            return await self._look_past(ids, before)
        return offered

    async def _take_in(self, found: list[FlowRun]) -> tuple[Offered, bool]:
        """Offer what was found, without what late.policy lets go of; whether that may have hidden more of it."""
        if self._supervisor.draining is not None:
            self.on_offer.runs.update({run.id: run for run in found})
            self.on_offer.unjudged = True
            return self._offer_again(), False
        # What is being claimed here is neither late nor on offer, however the API lists it.
        lateness = self._late.judge([run for run in found if self._supervisor.run(run.id) is None])
        spared = {run.id: run for run in lateness.spared}
        self.on_offer.runs.update({run.id: run for run in lateness.keep if run.id not in spared})
        offered = self._offer_again()
        if not lateness.drop and not spared:
            return offered, False
        if await self._late.let_go(lateness.drop) and self.on_offer.full_page:
            return offered, True  # a newer one than those spared may be behind this page
        self.on_offer.runs.update(spared)
        return self._offer_again(), False

    def _between(self) -> None:
        """While runs are let go of, what is on time goes on, and so does the watchdog."""
        self._pulse.beat("poll", within_s=_REQUEST_BOUND_S)
        self._offer_again()

    async def _look_past(self, ids: list[str], before: datetime) -> Offered:
        """A whole page of runs that may not start hides the ones behind it: ask for the other deployments alone."""
        blocked = {
            self.on_offer.runs[run_id].deployment_id for run_id in self.on_offer.waiting if run_id in self.on_offer.runs
        }
        others = [one for one in ids if one not in blocked]
        if not others:
            return Offered()
        offered, _ = await self._take_in(
            await self._api.scheduled_runs(deployment_ids=others, before=before, limit=None)
        )
        return offered

    def _offer_again(self) -> Offered:
        """Offer what is due of what the API last offered."""
        if self.on_offer.unjudged and self._supervisor.draining is None:
            self._kicked.set()
            return Offered()
        horizon = self._now() + timedelta(seconds=LEAD_S)
        ready = [run for run in self.on_offer.runs.values() if (due(run) or horizon) <= horizon]
        offered = self._supervisor.offer(ready)
        for run_id in offered.claimed:
            self.on_offer.runs.pop(run_id, None)
        self.on_offer.waiting = dict(offered.skipped)
        self._wait_s = offered.wait_s
        return offered

    async def _rest(self, seconds: float) -> None:
        """Wait for the next poll; meanwhile start what falls due, what a free slot lets in, what start_rate held up."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self._kicked.is_set():
            left = until - loop.time()
            if left <= 0:
                return
            self._freed.clear()
            self._pulse.beat("poll", within_s=left + _REQUEST_BOUND_S)
            try:
                async with asyncio.timeout(min(left, self._next_due_s())):
                    await self._freed.wait()
            except TimeoutError:
                pass
            if not self._kicked.is_set() and self.on_offer.runs:
                self._offer_again()

    def _next_due_s(self) -> float:
        """Seconds until something on offer may start by itself."""
        waits = [] if self._wait_s is None else [self._wait_s]
        now = self._now()
        for run in self.on_offer.runs.values():
            at = due(run)
            seconds = (at - now).total_seconds() - LEAD_S if at is not None else 0.0
            if seconds > 0:
                waits.append(seconds)
        return max(0.01, min(waits, default=3600.0))

    # --- cancelling ---------------------------------------------------------------------------------------------

    async def watch_cancelling(self) -> None:
        """Ask for ever which of our own runs are to be cancelled; no request while there is none."""
        backoff = self._backoff()
        while True:
            interval = min(_CANCEL_INTERVAL_S, self._settings().api.poll_interval_s)
            self._pulse.beat("cancelling", within_s=interval + _REQUEST_BOUND_S)
            try:
                await self.look_for_cancelling()
                backoff.reset()
            except (ApiAway, ApiDenied, ApiRejected) as error:
                self._pulse.beat("cancelling", within_s=3600.0)
                await asyncio.sleep(backoff.next_s(error))
            await asyncio.sleep(interval)

    async def look_for_cancelling(self) -> None:
        """One look. CANCELLING is a wish; CANCELLED while the process lives counts only when it stays so."""
        ours = [record.id for record in self._supervisor.records()]
        if not ours:
            self._seen_cancelled.clear()
            return
        found = await self._api.runs_of(ours, states=(StateType.CANCELLING, StateType.CANCELLED))
        wished = [run.id for run in found if run.state.type is StateType.CANCELLING]
        cancelled = {run.id for run in found if run.state.type is StateType.CANCELLED}
        # A child that was told the intent reports CANCELLED itself just before it exits: give it one interval.
        wished += sorted(cancelled & self._seen_cancelled)
        self._seen_cancelled = cancelled
        self._supervisor.cancel(wished, announce=False)
