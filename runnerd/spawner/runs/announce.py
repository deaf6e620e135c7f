"""Announce each change of a run's phase: write the record to disk, then the log line, then the event to the clients."""

from __future__ import annotations

from collections.abc import Callable

from runnerd.spawner.io.log import log
from runnerd.spawner.runs.records import ProcessRecord, RecordStore

# The daemon's word for a run that has to leave is none of an administrator's; records and messages have the daemon's.
_LOGGED_REASONS = {"evict": "drain"}


class Announcer:
    """Writes the records of `store` and the log; `publish` sends an event and the record to the clients."""

    def __init__(self, *, store: RecordStore, publish: Callable[[str, ProcessRecord], None]) -> None:
        self._store = store
        self._publish = publish

    def change_phase(self, run: ProcessRecord, phase: str, event: str, *, save: bool = False) -> None:
        """Set the run's phase and announce `event`; with `save`, write the record first."""
        run.phase = phase
        if save:
            self.save_record(run)
        log(_log_line(run))
        self._publish(event, run)

    def save_record(self, run: ProcessRecord) -> None:
        """Write the record; log a failure, such as a full disk, which must not keep the run from ending.

        A later spawner then reads the previous record.
        """
        try:
            self._store.write(run)
        except OSError as error:
            log(f"{run.name} cannot write its record: {error.strerror}")


def _log_line(run: ProcessRecord) -> str:
    words = f"{run.name} phase={run.phase} pid={run.pid}"
    if run.warm is not None:
        words += f" warm={run.warm.get('state')}"
        words += f" problem={run.warm['problem']!r}" if "problem" in run.warm else ""
    if run.start == "warm":
        words += " start=warm"
    if run.stop is not None:
        reason = str(run.stop.get("reason"))
        words += f" reason={_LOGGED_REASONS.get(reason, reason)}"
        if "told" in run.stop:
            words += f" told={'yes' if run.stop['told'] else 'no'}"
    if run.error is not None:
        words += f" error={run.error.get('message')!r}"
    if run.exit is not None:
        words += f" code={run.exit.get('code')} signal={run.exit.get('signal')}"
        words += " out-of-memory" if run.exit.get("oom") else ""
    return words
