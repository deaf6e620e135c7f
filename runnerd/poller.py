"""What the API wants started: due runs are found and offered to the supervisor.

Invariants: one poll is one request for all deployments of this host and one for each work pool it serves; a run that is
skipped stays on offer and is tried again the moment a slot is free, without asking the API, unless it is of a pool
whose runs the server counts; nothing here ends because the API is away.
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
from runnerd.limits import due, in_turn
from runnerd.logs import Log
from runnerd.model import FlowRun, Settings, Verdict
from runnerd.prefect_api.answers import Answer, ServerInfo
from runnerd.pulse import Pulse
from runnerd.registry import Registry
from runnerd.supervisor import Offered, Supervisor
from runnerd.workpool import WorkQueue
from runnerd.workpools.offers import PoolOffers
from runnerd.workpools.table import Served

PAGE = 200  # the most the server gives in one answer
LEAD_S = 3.0  # a cold start costs about this long, so a run is claimed this long before it is due
_PAGES = 25  # looked through in one go when they are full of late runs, or of runs that may not start
_APART_S = 1.0  # between polls for the sake of a slot that the server counts
_REQUEST_BOUND_S = 180.0  # a request, its connection and its time limit: for the watchdog


class OfferApi(Protocol):
    """What the poller asks of Prefect."""

    async def server(self) -> ServerInfo: ...
    async def scheduled_runs(
        self, *, deployment_ids: Sequence[str], before: datetime, limit: int | None
    ) -> list[FlowRun]: ...
    async def read_run(self, run_id: str) -> FlowRun | None: ...
    async def propose(self, run_id: str, verdict: Verdict, *, transition_id: str) -> Answer: ...


@dataclass(slots=True)
class OnOffer:
    """The runs last offered and not yet taken, soonest first, and why each of them waits."""

    runs: dict[str, FlowRun] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    full_page: bool = False
    unjudged: bool = False  # found while draining, so late.policy has not been applied

    def of_pools(self) -> dict[str, FlowRun]:
        return {run.id: run for run in self.runs.values() if run.pool is not None}


class Poller:
    """`poll` for ever, or `poll_once`."""

    def __init__(
        self,
        *,
        api: OfferApi,
        supervisor: Supervisor,
        registry: Registry,
        pools: PoolOffers,
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
        self._pools = pools
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
        """One look at everything this host serves, and what it offers handed on."""
        ids, pools = self._registry.ids(), self._pools.open()
        if not ids and not pools:
            self.on_offer = OnOffer()
            return Offered()
        server = await self._api.server()  # remembered; asked again only after a trouble
        self.unsupported = None if server.supported else server.why
        if not server.supported:
            return Offered()
        if self._supervisor.draining is None:  # else nobody looks: nothing is late, and nothing is on offer in time
            self._late.begin()
        offered = await self._poll_own(ids)
        for served in pools:
            self._pulse.beat("poll", within_s=_REQUEST_BOUND_S)
            offered = await self._poll_pool(served)
        return offered

    async def _poll_own(self, ids: list[str]) -> Offered:
        """The runs of this host's own deployments."""
        before = self._now() + timedelta(seconds=self._settings().api.prefetch_s)
        if not ids:
            self.on_offer = OnOffer(runs=self.on_offer.of_pools())
            return Offered()
        offered = Offered()
        for _ in range(_PAGES):
            found = await self._api.scheduled_runs(deployment_ids=ids, before=before, limit=None)
            self.polled_at = self._now()
            self.on_offer = OnOffer(runs=self.on_offer.of_pools(), full_page=len(found) >= PAGE)
            offered, more = await self._take_in(found)
            if not more:
                break
        if self.on_offer.full_page and offered.skipped and not offered.claimed:
            return await self._look_past(ids, before)
        return offered

    async def _poll_pool(self, served: Served) -> Offered:
        """The runs of one work pool."""
        found = await self._pools.find(served)
        self.on_offer.runs = {run.id: run for run in self.on_offer.runs.values() if run.pool != served.name}
        self.polled_at = self._now()
        offered = self._offer_of(served, found)
        if len(found) < PAGE or not self._worth_another(served, offered, found):
            return offered
        for queue in served.queues:
            offered = await self._look_past_in(queue, served)
            if not self._worth_another(served, offered, ()):
                break
        return offered

    def _offer_of(self, served: Served, found: Sequence[FlowRun]) -> Offered:
        self.on_offer.runs.update({run.id: run for run in found})
        return self._offer_again(fresh=served.name)

    async def _look_past_in(self, queue: WorkQueue, served: Served) -> Offered:
        """Past those of a queue that their own limits hold up; by time, which is the order within one queue only."""
        after: datetime | None = None
        for _ in range(_PAGES):
            self._pulse.beat("poll", within_s=_REQUEST_BOUND_S)
            found = await self._pools.find(served, only=queue, after=after)
            offered = self._offer_of(served, found)
            last = due(found[-1]) if found else None
            if len(found) < PAGE or last in (None, after) or not self._worth_another(served, offered, found):
                break
            after = last
        return offered

    def _worth_another(self, served: Served, offered: Offered, found: Sequence[FlowRun]) -> bool:
        """Whether runs behind these might start though none of these did."""
        full = offered.full or served.name in offered.full_pools or self._supervisor.draining is not None
        return not full and offered.wait_s is None and not {run.id for run in found} & set(offered.claimed)

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

    def _offer_again(self, *, fresh: str | None = None) -> Offered:
        """Offer what is due of what the API last offered; `fresh` is the pool that was asked just now.

        Of a pool whose runs the server counts only what is fresh: meanwhile another host may have taken its last slot.
        """
        if self.on_offer.unjudged and self._supervisor.draining is None:
            self._kicked.set()
            return Offered()
        horizon = self._now() + timedelta(seconds=LEAD_S)
        stale = self._pools.limited() - {fresh}
        runs = [run for run in self.on_offer.runs.values() if run.pool not in stale]
        ready = [run for run in in_turn(runs) if (due(run) or horizon) <= horizon]
        offered = self._supervisor.offer(ready)
        for run_id in offered.claimed:
            self.on_offer.runs.pop(run_id, None)
        still = {run_id: why for run_id, why in self.on_offer.waiting.items() if run_id in self.on_offer.runs}
        looked_at = {run.id for run in ready}
        self.on_offer.waiting = {k: why for k, why in still.items() if k not in looked_at} | dict(offered.skipped)
        self._wait_s = offered.wait_s
        return offered

    async def _rest(self, seconds: float) -> None:
        """Wait for the next poll; meanwhile start what falls due, what a free slot lets in, what start_rate held up."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        until = asked + seconds
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
            if self._pools.limited():
                until = min(until, max(loop.time(), asked + _APART_S))

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
