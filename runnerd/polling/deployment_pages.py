"""Polls this host's own deployments: pages of due runs, with late.policy applied to each page.

Invariants: one poll is one request for all deployments together, and more only where a full page hides other runs; a
late run that `latest` spares is put on offer only after the last page, because a newer one may follow (ADR 18).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from runnerd.config.in_force import ConfigInForce
from runnerd.core.pace import Pace
from runnerd.core.prefect import FlowRun
from runnerd.polling.late_runs import LateRuns
from runnerd.polling.offering import Offering
from runnerd.polling.progress import PollProgress
from runnerd.prefect_api.answers import Page
from runnerd.prefect_api.client import PrefectApi
from runnerd.runs.supervisor import Offered, Supervisor
from runnerd.system.ambient import Ambient

_LATE_PAGES_PER_POLL = 25


class DeploymentPages:
    """Puts the due runs of own deployments on offer, and offers them."""

    def __init__(
        self,
        *,
        api: PrefectApi,
        supervisor: Supervisor,
        offering: Offering,
        late: LateRuns,
        progress: PollProgress,
        pace: Pace,
        config: ConfigInForce,
        ambient: Ambient,
    ) -> None:
        self._api = api
        self._supervisor = supervisor
        self._offering = offering
        self._on_offer = offering.on_offer
        self._late = late
        self._progress = progress
        self._pace = pace
        self._settings = config.settings
        self._now = ambient.now

    def begin_poll(self) -> None:
        """Begin to find late runs anew. A draining host skips none, so a run that it lists is not on offer in time."""
        if self._supervisor.draining is None:
            self._late.begin_poll()

    async def poll_deployments(self, ids: Sequence[str]) -> Offered:
        """Poll the deployments with these ids; the result covers the pools' runs on offer too. Raises ApiError."""
        if not ids:
            self._on_offer.drop_all_own()
            return self._offering.offer_due()
        api = self._settings().api
        # A poll further than prefetch, so that a run is known at the moment when its start is allowed.
        before = self._now() + timedelta(seconds=api.prefetch_s + self._pace.ahead_s(api.poll_interval_s))
        offered, found = Offered(), Page()
        for _ in range(_LATE_PAGES_PER_POLL):
            self._on_offer.begin_list(None, here=self._supervisor.ids())
            found = await self._api.scheduled_runs(deployment_ids=ids, before=before, limit=None)
            self._progress.note_answer()
            self._on_offer.drop_own()
            offered, hides_more = await self._offer_page(found, full=found.full)
            if not hides_more:
                break
        hides_others = found.unreadable or offered.skipped
        if found.full and hides_others and not {run.id for run in found} & set(offered.claimed):
            return await self._poll_unblocked(ids, before, unreadable=found.unreadable)
        return offered

    async def _offer_page(self, found: list[FlowRun], *, full: bool) -> tuple[Offered, bool]:
        """Offer a page without the runs that late.policy skips; the flag says whether skipped runs hid others."""
        found = self._on_offer.without_taken(None, found)
        if self._supervisor.draining is not None:
            self._on_offer.put(found)
            self._on_offer.unjudged = True
            return self._offering.offer_due(), False
        # A run that is being claimed here is neither late nor on offer, however the API lists it.
        others = [run for run in found if self._supervisor.run(run.id) is None]
        # Not late either: a process somewhere may have this run under way, and skipping it would end it.
        bound = [run for run in others if run.state.needs_process]
        lateness = self._late.judge([run for run in others if not run.state.needs_process])
        spared = {run.id for run in lateness.spared}
        self._on_offer.put(bound + [run for run in lateness.keep if run.id not in spared])
        offered = self._offering.offer_due()
        if not lateness.drop and not spared:
            return offered, False
        if await self._skip_late(lateness.drop) and full:
            return offered, True  # a newer run than those spared may be behind this page
        self._on_offer.put(lateness.spared)
        return self._offering.offer_due(), False

    async def _skip_late(self, runs: Sequence[FlowRun]) -> bool:
        """Skip these runs in the API; whether any of them is skipped by that. Raises ApiAway, ApiDenied."""
        any_skipped = False
        for run in runs:
            if self._late.is_left_alone(run.id):
                continue
            any_skipped |= await self._late.skip_run(run)
            # There may be two hundred of them: runs that are on time must start meanwhile.
            self._progress.beat()
            self._offering.expire_listings()
            self._offering.offer_due()
        return any_skipped

    async def _poll_unblocked(self, ids: Sequence[str], before: datetime, *, unreadable: frozenset[str]) -> Offered:
        """Poll the deployments none of whose runs wait or are unreadable: a page of such runs hides theirs (ADR 10)."""
        runs = self._on_offer.runs
        blocked = unreadable | {runs[run_id].deployment_id for run_id in self._on_offer.waiting if run_id in runs}
        others = [one for one in ids if one not in blocked]
        if not others:
            return Offered()
        found = await self._api.scheduled_runs(deployment_ids=others, before=before, limit=None)
        offered, _ = await self._offer_page(found, full=True)
        return offered
