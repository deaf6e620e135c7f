"""Remembers the items that were left out of answers because they are unreadable, and has each noted once.

Invariant: however many there are, and however often they are listed, one answer adds at most a few lines to the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runnerd.core.place import printable
from runnerd.prefect_api.answers import Skipped

_REMEMBERED_MAX = 1000  # the oldest are forgotten first, and noted again
_NOTED_PER_ANSWER = 3
_LONGEST = 300  # characters


class LeftOut:
    """Counts what was left out, and calls `note` with words for each item that is new."""

    def __init__(self, *, note: Callable[[str], None] | None) -> None:
        self._note = note
        self._known: dict[str, None] = {}
        self.skipped = Skipped()

    def add(self, what: str, bad: Sequence[str]) -> None:
        """Add the items of one answer: what the answer lists, and for each item its id and what is odd about it."""
        if not bad:
            return
        self.skipped = Skipped(count=self.skipped.count + len(bad), why=bad[-1])
        new = [words for words in dict.fromkeys(f"{what}: {why}" for why in bad) if words not in self._known]
        self._known |= dict.fromkeys(new)
        for oldest in list(self._known)[:-_REMEMBERED_MAX]:
            del self._known[oldest]
        for words in new[:_NOTED_PER_ANSWER]:
            self._say(words)
        if len(new) > _NOTED_PER_ANSWER:
            self._say(f"{what}: {len(new) - _NOTED_PER_ANSWER} more of the same answer")

    def _say(self, words: str) -> None:
        if self._note is not None:
            self._note(printable(words[:_LONGEST]))
