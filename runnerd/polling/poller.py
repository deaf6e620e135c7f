"""What the API wants started: due runs are found and offered to the supervisor.

Invariants: one poll is one request for all deployments of this host and one for each work pool it serves; a run that is
skipped stays on offer and is tried again the moment a slot is free, without asking the API; of a pool whose runs the
server counts only once it was asked again, and the slot waits for that; one that cannot be asked hides no other;
nothing here ends because the API is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiAway, ApiDenied, ApiError, ApiRejected
from runnerd.core.machine import Phase
from runnerd.core.prefect import FlowRun, Verdict, due
from runnerd.core.problems import Problems
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.polling.lateness import LateRuns
from runnerd.polling.on_offer import OnOffer
from runnerd.pools.offers import PoolOffers
from runnerd.pools.table import Served
from runnerd.prefect_api.answers import Answer, ServerInfo
from runnerd.prefect_api.backoff import Backoff
from runnerd.prefect_api.reading import PAGE
from runnerd.runs.supervisor import Offered, Supervisor
from runnerd.system.ambient import Ambient

T = TypeVar("T")
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


class Poller:
    """`run` for ever, or `poll_once`."""

    def __init__(
        self,
        *,
        api: OfferApi,
        supervisor: Supervisor,
        registry: Registry,
        pools: PoolOffers,
        config: ConfigInForce,
        wakes: Wakes,
        ambient: Ambient,
        problems: Problems,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._supervisor = supervisor
        self._registry = registry
        self._pools = pools
        self._settings = config.settings
        self._wakes = wakes
        self._pulse = ambient.pulse
        self._now = ambient.now
        self._backoff = ambient.backoff
        self._late = LateRuns(api=api, config=config, ambient=ambient, between=self._between)
        self._jitter = jitter
        self.on_offer = OnOffer()
        self._wait_s: float | None = None  # until start_rate lets the next one start
        self._held = False  # something would start, had the server been asked for it just now
        self._fresh: set[str] = set()  # pools that were asked in the poll under way
        self._counted: set[str] = set()  # runs that took up a slot the server counts, when it was asked last
        self._answered = False  # whether anything was, at the last poll
        self.polled_at: datetime | None = None
        self.unsupported: str | None = None  # why this server's runs cannot be claimed safely
        problems.register_text(lambda: self.unsupported)

    def put_on_offer(self, run: FlowRun) -> None:
        """A run that was just created for this host: no need to ask the API for it."""
        self.on_offer.runs[run.id] = run
        self._wakes.offer.set()

    def serves(self, run: FlowRun) -> bool:
        """Whether this host starts such a run: its deployment or its work pool is served here."""
        own = self._registry.by_id(run.deployment_id) is not None
        return own or run.pool in {served.name for served in self._pools.open()}

    # --- due runs -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Poll for ever."""
        backoff = self._backoff()
        while True:
            self._wakes.poll.clear()
            self._pulse.beat("poll", within_s=_REQUEST_BOUND_S)
            try:
                await self.poll_once()
            except (ApiAway, ApiDenied, ApiRejected) as error:
                # The transport has said so once in the log and in `status`; here it only costs time.
                self._offer_again()
                if not self._answered:
                    await self._rest_after(backoff, error)
                    continue
            backoff.reset()
            await self._rest(self._settings().api.poll_interval_s * (0.9 + 0.2 * self._jitter()))

    async def _rest_after(self, backoff: Backoff, error: ApiError) -> None:
        """Wait, unless somebody knows that it answers again."""
        self._pulse.beat("poll", within_s=3600.0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff.next_s(error)):
                await self._wakes.poll.wait()

    async def poll_once(self) -> Offered:
        """One look at everything this host serves, and what it offers handed on. Raises ApiError, last of all."""
        self._answered = False
        self._counted.clear()
        ids, pools = self._registry.ids(), self._pools.open()
        self.on_offer.keep_pools({served.name for served in pools})
        if not ids and not pools:
            self.on_offer = OnOffer()
            return Offered()
        server = await self._api.server()  # remembered; asked again only after a trouble
        self.unsupported = None if server.supported else server.why
        if not server.supported:
            return Offered()
        if self._supervisor.draining is None:  # else nobody looks: nothing is late, and nothing is on offer in time
            self._late.begin()
        troubles: list[ApiError] = []
        # All are asked before any slot is given away, or whoever is asked first would have them.
        longer = [served for served in pools if await self._tried(self._ask_pool(served), troubles)]
        offered = await self._tried(self._poll_own(ids), troubles) or self._offer_again()
        for served in longer:
            await self._tried(self._look_behind(served, offered), troubles)
        self._fresh.clear()
        if troubles:
            raise troubles[0]
        return offered

    async def _tried(self, asking: Awaitable[T], troubles: list[ApiError]) -> T | None:
        self._pulse.beat("poll", within_s=_REQUEST_BOUND_S)
        try:
            return await asking
        except (ApiAway, ApiDenied, ApiRejected) as error:
            troubles.append(error)
            return None

    def _note_answer(self) -> None:
        self.polled_at, self._answered = self._now(), True

    async def _poll_own(self, ids: list[str]) -> Offered:
        """The runs of this host's own deployments, offered together with those of the pools."""
        before = self._now() + timedelta(seconds=self._settings().api.prefetch_s)
        if not ids:
            self.on_offer = OnOffer(runs=self.on_offer.of_pools())
            return self._offer_again()
        offered, found = Offered(), list[FlowRun]()
        for _ in range(_PAGES):
            found = await self._api.scheduled_runs(deployment_ids=ids, before=before, limit=None)
            self._note_answer()
            self.on_offer = OnOffer(runs=self.on_offer.of_pools(), full_page=len(found) >= PAGE)
            offered, more = await self._take_in(found)
            if not more:
                break
        if self.on_offer.full_page and offered.skipped and not {run.id for run in found} & set(offered.claimed):
            return await self._look_past(ids, before)
        return offered

    async def _ask_pool(self, served: Served) -> bool:
        """Put on offer what one work pool has; whether there may be more of it behind."""
        self._note_counted()
        if served.limited:
            self.on_offer.drop_pool(served.name)  # were it not answered, slots would be left free for nothing
        found = await self._pools.find(served)
        self._note_answer()
        self.on_offer.drop_pool(served.name)
        self.on_offer.put(self._foreign(found))
        self._fresh.add(served.name)
        return self._pools.may_have_more(served, found)

    def _foreign(self, found: Sequence[FlowRun]) -> list[FlowRun]:
        """What our own deployments have in pools is found with them, and started as they say."""
        return [run for run in found if self._registry.by_id(run.deployment_id) is None]

    async def _look_behind(self, served: Served, offered: Offered) -> None:
        """Past a page of runs that their own limits hold up; a few pages at each poll, until all were looked at."""
        for _ in range(_PAGES):
            if not self._worth_another(served, offered):
                return
            self._pulse.beat("poll", within_s=_REQUEST_BOUND_S)
            known = set(self.on_offer.runs)
            found = await self._pools.find_behind(served)
            if found is None:
                return
            self.on_offer.put(self._foreign(found))
            offered = self._offer_again()
            self.on_offer.keep_one_each([run for run in found if run.id not in known])

    def _worth_another(self, served: Served, offered: Offered) -> bool:
        """Whether runs behind these might start."""
        if offered.full or served.name in offered.full_pools or offered.wait_s is not None:
            return False
        # A claim counts there once it was told, and until then its slot would be given away a second time.
        claiming = any(one.pool == served.name and one.phase is Phase.CLAIMING for one in self._supervisor.records())
        counted_out = served.limited and (claiming or not self.on_offer.waits(served.name))
        return self._supervisor.draining is None and not counted_out

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
        self._fresh.clear()
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
        """Offer what is due of what the API last offered.

        Of a pool whose runs the server counts only what is fresh: meanwhile another host may have taken its last slot.
        """
        if self._awaits_late_policy():
            return Offered()
        horizon = self._now() + timedelta(seconds=LEAD_S)
        self.on_offer.keep_pools({served.name for served in self._pools.open()})
        ready = self.on_offer.ready(horizon)
        stale = self._pools.limited() - self._fresh
        offered = self._supervisor.offer(ready, hold={run.id for run in ready if run.pool in stale})
        self.on_offer.take(offered.claimed, dict(offered.skipped), looked_at={run.id for run in ready})
        self._wait_s, self._held = offered.wait_s, bool(offered.held)
        self._note_counted()
        return offered

    def _awaits_late_policy(self) -> bool:
        """Whether a drain has ended since the last poll: late.policy must be applied before any run starts."""
        return bool(self.on_offer.runs) and self.on_offer.unjudged and self._supervisor.draining is None

    def _note_counted(self) -> None:
        limited = self._pools.limited()
        self._counted |= {record.id for record in self._supervisor.records() if record.pool in limited}

    def _server_has_more(self) -> bool:
        """Whether it must be asked before the next poll: for what is held, or for a slot that it counts and is free."""
        return self._held or bool(self._counted - {record.id for record in self._supervisor.records()})

    async def _rest(self, seconds: float) -> None:
        """Wait for the next poll; meanwhile start what falls due, what a free slot lets in, what start_rate held up."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        until = asked + seconds
        while not self._wakes.poll.is_set():
            left = until - loop.time()
            if left <= 0:
                return
            self._wakes.offer.clear()
            self._pulse.beat("poll", within_s=left + _REQUEST_BOUND_S)
            try:
                async with asyncio.timeout(min(left, self._next_due_s())):
                    await self._wakes.offer.wait()
            except TimeoutError:
                pass
            if self._wakes.poll.is_set() or self._awaits_late_policy():
                return
            if self.on_offer.runs:
                self._offer_again()
            if self._server_has_more():
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
