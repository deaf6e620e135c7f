"""Saves one record after another until it is killed; says each attempt once its save has returned."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime

from runnerd.core.machine import Phase, RunRecord
from runnerd.journal.journal import Journal
from runnerd.log.log import make_log


def main() -> None:
    journal = Journal(path=sys.argv[1], now=lambda: datetime.now(UTC), log=make_log(log_format="json", journald=False))
    found = journal.run("r-1")
    record = found or RunRecord(
        id="r-1",
        name="run",
        deployment_id=None,
        deployment="d",
        flow="f",
        transition_id="t",
        created_at=datetime.now(UTC),
        phase=Phase.RUNNING,
        attempt=0,
    )
    while True:
        record = replace(record, attempt=record.attempt + 1)
        journal.save(record, str(record.attempt))
        sys.stdout.write(f"{record.attempt}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
