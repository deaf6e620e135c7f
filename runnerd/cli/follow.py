"""Follows a run until it is done, also through restarts of runnerd, which the run outlives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from runnerd.control.client import ControlClient, Interrupted, Json, quote
from runnerd.core.errors import ControlError

T = TypeVar("T")

AWAY_MAX_S = 60.0  # how long a restart of runnerd may take
_RETRY_S = 0.5
_AWAY_STATUSES = (0, 502, 503, 504)


def follow_changes(client: ControlClient, run_id: str) -> Iterator[Json]:
    """Yield the run's document now and after each change, the last one with phase "done". Raises ControlError."""

    def ask() -> Iterator[Json]:
        return client.lines("/v1/events", {"run": run_id})

    while True:  # runnerd ends the stream of a reader that is too slow; the next stream starts with the present state
        for document in _repeat_through_restarts(ask):
            yield document
            if document["phase"] == "done":
                return


def wait_until_done(client: ControlClient, run_id: str) -> Json:
    """Return the run's document once the run is done. Raises ControlError."""
    return [*follow_changes(client, run_id)][-1]


def follow_output(client: ControlClient, run_id: str, *, attempt: int | None = None) -> Iterator[bytes]:
    """Yield the run's output as it comes, until its process has ended; with `attempt` only of that one.

    Raises ControlError. After a restart of runnerd it continues where it stopped; output that was truncated in between
    may be repeated.
    """
    seen = 0

    def ask() -> Iterator[bytes]:
        query = {"follow": "1", "offset": str(seen), **({"attempt": str(attempt)} if attempt else {})}
        return client.stream(f"/v1/runs/{quote(run_id)}/logs", query)

    for block in _repeat_through_restarts(ask):
        seen += len(block)
        yield block


def _repeat_through_restarts(ask: Callable[[], Iterator[T]]) -> Iterator[T]:
    """Yield what `ask` yields; call it again when the stream breaks off, for AWAY_MAX_S without an answer at most."""
    give_up_at = None
    while True:
        try:
            for item in ask():
                give_up_at = None
                yield item
            return
        except ControlError as error:
            now = time.monotonic()
            if isinstance(error, Interrupted):
                give_up_at = give_up_at or now + AWAY_MAX_S
            if give_up_at is None or error.status not in _AWAY_STATUSES or now > give_up_at:
                raise
            time.sleep(_RETRY_S)  # there is no event for a socket that accepts connections again
