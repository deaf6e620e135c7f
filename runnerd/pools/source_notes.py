"""Sends Prefect which version of its source a run was started in: a label on 3.2 and later, a line of its log before.

Invariant: nothing waits for this and nothing depends on it; of a run that is adopted it is sent again, at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from runnerd.core.machine import Phase, RunRecord
from runnerd.core.record_feed import RecordFeed
from runnerd.pools.outbox import Outbox
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.run_versions import note_version

COMMIT_LABEL, URL_LABEL = "runnerd.source.commit", "runnerd.source.url"


class SourceNotes:
    """Sends the note of every run that the feed announces as started from a source."""

    def __init__(self, *, api: PrefectApi, feed: RecordFeed, outbox: Outbox, now: Callable[[], datetime]) -> None:
        self._api = api
        self._outbox = outbox
        self._now = now
        self._noted: set[str] = set()  # runs that are not done
        feed.subscribe(self._note)

    def _note(self, record: RunRecord) -> None:
        source = record.source
        if source is None or not source.get("commit") or record.started_at is None:
            return
        if record.id in self._noted:
            return self._noted.discard(record.id) if record.phase is Phase.DONE else None
        if record.phase is not Phase.DONE:
            self._noted.add(record.id)
        commit, url = str(source["commit"]), str(source["url"])
        send = partial(
            note_version,
            self._api,
            record.id,
            labels={COMMIT_LABEL: commit, URL_LABEL: url},
            line=f"the code of this run is {url} at {commit}",
            now=self._now,
        )
        self._outbox.put("versions of sources", f"the version of the source of run {record.id}", send)
