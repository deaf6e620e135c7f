"""Learns how early runs have to be started: from the journal at first, then from each run as its process ends."""

from __future__ import annotations

import contextlib

from runnerd.core.errors import JournalError
from runnerd.core.leads import Leads
from runnerd.core.machine import Phase, RunRecord
from runnerd.core.record_feed import RecordFeed
from runnerd.journal.journal import Journal

_RUNS_READ_AT_START = 200  # about 40 ms


def learn_leads(*, journal: Journal, feed: RecordFeed, processors: int) -> Leads:
    """Return leads that have learnt from the latest runs of the journal, and go on to learn from `feed`.

    Without the journal, or of a deployment that is not among these runs, the first run is started as early as allowed.
    """
    leads = Leads(processors=processors)

    def learn(record: RunRecord) -> None:
        if record.ready_s is not None and record.phase is Phase.DONE:  # each run's last record
            leads.learn(record.deployment_id, record.ready_s)

    with contextlib.suppress(JournalError):  # it is in the journal's `problem`
        for record in reversed(journal.history(_RUNS_READ_AT_START)):
            learn(record)
    feed.subscribe(learn)
    return leads
