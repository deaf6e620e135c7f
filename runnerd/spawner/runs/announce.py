"""Says what becomes of a run: on disk, in the log, to the clients. In that order."""

from __future__ import annotations

from collections.abc import Callable

from runnerd.spawner.io.log import log
from runnerd.spawner.runs.records import RecordStore, Run


class Teller:
    def __init__(self, *, store: RecordStore, publish: Callable[[str, Run], None]) -> None:
        self._store = store
        self._publish = publish

    def turn(self, run: Run, phase: str, event: str, *, save: bool = False) -> None:
        run.phase = phase
        if save:
            self.save(run)
        log(_story(run))
        self._publish(event, run)

    def save(self, run: Run) -> None:
        """A full disk must not keep a run from ending; a later spawner then finds the older record."""
        try:
            self._store.write(run)
        except OSError as error:
            log(f"{run.name} cannot write its record: {error.strerror}")


def _story(run: Run) -> str:
    words = f"{run.name} phase={run.phase} pid={run.pid}"
    if run.stop is not None:
        words += f" reason={run.stop.get('reason')}"
        if "told" in run.stop:
            words += f" told={'yes' if run.stop['told'] else 'no'}"
    if run.error is not None:
        words += f" error={run.error.get('message')!r}"
    if run.exit is not None:
        words += f" code={run.exit.get('code')} signal={run.exit.get('signal')}"
        words += " out-of-memory" if run.exit.get("oom") else ""
    return words
