"""Notifies once of each run that has not begun though it is past its time."""

from __future__ import annotations

from runnerd.core.errors import JournalError
from runnerd.core.prefect import FlowRun, due
from runnerd.journal.journal import Journal
from runnerd.notices.making import NoticeMaker
from runnerd.notices.queue import NoticeQueue

_KNOWN_MAX = 10_000  # runs; the oldest are forgotten first, and the journal still knows their notices


class LateNotices:
    """Remembers of which runs was notified."""

    def __init__(self, *, maker: NoticeMaker, queue: NoticeQueue, journal: Journal) -> None:
        self._maker = maker
        self._queue = queue
        self._rows = journal.notices
        self._known: dict[str, None] = {}  # run ids, each with when the run was due

    def note(self, run: FlowRun) -> None:
        """Notify of this run, unless that was done before. Where the journal cannot be written, the next poll does."""
        about = f"{run.id} {due(run)}"  # a run that is scheduled again may be late again
        if about in self._known:
            return
        notices = self._maker.of_late(run)
        if not notices:
            return
        try:
            known = self._rows.has(one.id for one in notices)
            fresh = [one for one in notices if one.id not in known]
            self._rows.add(fresh)
        except JournalError:  # the journal's own problem says so
            return
        self._queue.add(fresh)
        self._known[about] = None
        if len(self._known) > _KNOWN_MAX:
            del self._known[next(iter(self._known))]
