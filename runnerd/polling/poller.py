"""Decides when the API is asked for due runs, and when runs on offer are offered again without a request.

Invariants: a failed request, and whatever one answer makes go wrong, costs time and ends nothing; between polls, also
those that failed, the poller wakes when a run falls due, when a slot becomes free, and when start_rate allows one more
start.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import datetime

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiError
from runnerd.core.prefect import FlowRun
from runnerd.core.wakes import Wakes
from runnerd.polling.intervals import Intervals
from runnerd.polling.look_ups import LookUps
from runnerd.polling.offering import Offering
from runnerd.polling.parents import Parents
from runnerd.polling.poll_round import PollRound
from runnerd.polling.progress import BACKOFF_BOUND_S, REQUEST_BOUND_S, PollProgress
from runnerd.runs.supervisor import Offered
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

# Prefect sends the event of a state before it commits the state: a poll may come too soon, and the next is far.
_AFTER_EARLY_POLL_S = 2.0
_BETWEEN_SLOT_POLLS_S = 1.0  # at least, from one poll to the next for a slot that the API counts


class Poller:
    """Polls for due runs: `run` for ever, `poll_once` once."""

    def __init__(
        self,
        *,
        poll_round: PollRound,
        offering: Offering,
        parents: Parents,
        look_ups: LookUps,
        intervals: Intervals,
        progress: PollProgress,
        wakes: Wakes,
        config: ConfigInForce,
        ambient: Ambient,
    ) -> None:
        self._round = poll_round
        self._offering = offering
        self._intervals = intervals
        self.on_offer = offering.on_offer
        self.parents = parents
        self.look_ups = look_ups
        self._progress = progress
        self._wakes = wakes
        self._config = config.settings
        self._clock = ambient.clock
        self._began_at = -math.inf  # the latest poll
        self._again = False  # the latest poll was called for, and may have come too soon
        self._backoff = ambient.backoff
        self._contained = Containment(log=ambient.log, loop="poll")

    @property
    def polled_at(self) -> datetime | None:
        """When the API last listed runs; None until then."""
        return self._progress.polled_at

    @property
    def unsupported(self) -> str | None:
        """Why runs of this server cannot be claimed safely; None while they can."""
        return self._round.unsupported

    def serves(self, run: FlowRun) -> bool:
        """Whether this host starts such a run: its deployment or its work pool is served here."""
        return self._round.serves(run)

    def put_on_offer(self, run: FlowRun) -> None:
        """Offer a run that was just created for this host, without asking the API for it.

        A run of a work pool is asked for at once instead: its queue and the limits of the pool decide when it starts.
        """
        if run.pool is not None:
            self._wakes.poll_now()
            return
        self.on_offer.put_created(run)
        self._wakes.offer.set()

    async def run(self) -> None:
        """Poll for ever."""
        backoff = self._backoff()
        while True:
            woken = self._wakes.poll.is_set()
            if woken:
                await self._keep_within_burst()
            self._began_at = self._clock()
            if woken or self._again or self._awaits_late_policy():
                self._intervals.end_all()
            self._intervals.end_of(self._awaited_pools())
            self._wakes.poll.clear()
            self._progress.beat()
            with self._contained.item("a round") as item:
                await self._poll_and_rest(woken=woken)
            if item.why is None:
                backoff.reset()
            else:
                await self._back_off(backoff.next_s())

    async def _keep_within_burst(self) -> None:
        """Wait until one more poll is within `poll_burst`: any number of events may call for one.

        Meanwhile runs start as between polls: with a low `poll_burst` this may last as long as `poll_interval`.
        """
        api = self._config().api
        until = self._began_at + min(1.0 / api.poll_burst_per_s, api.poll_interval_s)
        while (left := until - self._clock()) > 0:
            await self._await_offer(left)
            if self.on_offer.runs:
                self._offering.offer_due()

    async def _poll_and_rest(self, *, woken: bool) -> None:
        before, self._again = set(self.on_offer.runs), False
        try:
            offered = await self._round.poll_due()
            found = bool(offered.claimed) or not set(self.on_offer.runs) <= before
            self._again = woken and not found and self._intervals.far
        except ApiError:
            # The client has logged the failure once, and `status` shows it; here it only costs time.
            self._offering.offer_due()
        rest_s = self._intervals.end_poll()
        await self._rest(min(rest_s, _AFTER_EARLY_POLL_S) if self._again else rest_s)

    def _awaits_late_policy(self) -> bool:
        """Whether to ask for own runs before their interval is over. Not while that fails: the back-off goes on."""
        return self._offering.awaits_late_policy() and None not in self._intervals.failing

    def _awaited_pools(self) -> set[str]:
        """Names of the pools to ask before their interval is over."""
        return self._offering.awaited_pools() - self._intervals.failing

    async def poll_once(self) -> Offered:
        """Poll everything this host serves once and return what became of it. Raises ApiError, after all were asked."""
        self._intervals.end_all()
        self._offering.once = True
        return await self._round.poll_due()

    async def _back_off(self, seconds: float) -> None:
        """Wait, or until there is a reason to poll now."""
        self._progress.beat(within_s=BACKOFF_BOUND_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wakes.poll.wait()

    async def _rest(self, seconds: float) -> None:
        """Wait for the next poll; meanwhile offer what falls due, what a free slot lets in, what start_rate held up."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        until = asked_at + seconds
        while not self._wakes.poll.is_set():
            if awaited := self._awaited_pools():  # also at first: a slot may have become free during the poll
                self._intervals.end_of(awaited)
                until = min(until, max(loop.time(), asked_at + _BETWEEN_SLOT_POLLS_S))
            left = until - loop.time()
            if left <= 0:
                return
            await self._await_offer(left)
            if self._wakes.poll.is_set() or self._awaits_late_policy():
                return self._intervals.end_all()
            if self.on_offer.runs:
                self._offering.offer_due()

    async def _await_offer(self, seconds: float) -> None:
        """Wait until runs on offer are to be offered again, at most so long."""
        self._wakes.offer.clear()
        self._progress.beat(within_s=seconds + REQUEST_BOUND_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self._offering.next_due_s())):
                await self._wakes.offer.wait()
