"""Lists due runs in answers that are short enough: with fewer runs, or of fewer deployments, where they are not.

Invariant: one run or deployment whose answer is longer than runnerd reads hides no other deployment's runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from runnerd.core.place import Json
from runnerd.core.prefect import due
from runnerd.prefect_api.answers import Page
from runnerd.prefect_api.paging import NO_VALUES, Pages
from runnerd.prefect_api.parse import parse_offer
from runnerd.prefect_api.reading import TOO_LONG, Reader
from runnerd.prefect_api.values import EARLIEST

_LEAVE_OUT_FOR = timedelta(minutes=10)


class DueRuns:
    """Lists the due runs of deployments, whatever work pool they are in."""

    def __init__(self, *, pages: Pages, reader: Reader, now: Callable[[], datetime]) -> None:
        self._pages = pages
        self._reader = reader
        self._now = now
        self._left_out_until: dict[str, datetime] = {}  # by deployment id

    async def list(self, deployment_ids: Sequence[str], *, before: datetime, limit: int | None) -> Page:
        """List the runs that fall due before `before`, the earliest first, at most 200. Raises ApiError."""
        now = self._now()
        self._left_out_until = {one: until for one, until in self._left_out_until.items() if until > now}
        ids = [one for one in deployment_ids if one not in self._left_out_until]
        if not ids or limit == 0:
            return Page()

        async def ask(some: Sequence[str]) -> list[Page]:
            return [await self._page(some, before=before, limit=limit)]

        pages = await self._reader.by_halves(ids, ask, give_up=self._leave_out)
        if len(pages) == 1:
            return pages[0]
        runs = sorted((run for page in pages for run in page), key=lambda run: due(run) or EARLIEST)
        unreadable = frozenset(one for page in pages for one in page.unreadable)
        return Page(runs, full=any(page.full for page in pages), unreadable=unreadable)

    async def _page(self, deployment_ids: Sequence[str], *, before: datetime, limit: int | None) -> Page:
        body: dict[str, Json] = {"deployment_ids": list(deployment_ids), "scheduled_before": before.isoformat()}
        path = "/deployments/get_scheduled_flow_runs"
        page = await self._pages.first(path, body, limit=limit, parse=parse_offer, values=NO_VALUES)
        assert page is not None, "a 404 is no value here"
        return page

    def _leave_out(self, deployment_id: str) -> None:
        self._left_out_until[deployment_id] = self._now() + _LEAVE_OUT_FOR
        self._reader.leave_out("deployments", f"{deployment_id}: its next run: {TOO_LONG}")
