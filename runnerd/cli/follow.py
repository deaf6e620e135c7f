"""Following a run until it is done, through restarts of runnerd: a run outlives the daemon, so its watchers do too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from runnerd.control.client import ControlClient, Interrupted, quote
from runnerd.core.errors import ControlError

Json = Any
T = TypeVar("T")

AWAY_MAX_S = 60.0
_RETRY_S = 0.5
_AWAY = (0, 502, 503, 504)


def changes_until_done(client: ControlClient, run_id: str) -> Iterator[Json]:
    """The run's document now and after each change, the last one with phase "done". Raises ControlError."""

    def ask() -> Iterator[Json]:
        return client.lines("/v1/events", {"run": run_id})

    while True:  # a stream that ends before the run means that we fell behind: the next one starts from now
        for document in _through_restarts(ask):
            yield document
            if document["phase"] == "done":
                return


def last_document(client: ControlClient, run_id: str) -> Json:
    """The run's document once it is done. Raises ControlError."""
    return [*changes_until_done(client, run_id)][-1]


def output_until_over(client: ControlClient, run_id: str) -> Iterator[bytes]:
    """The run's output as it comes, until its process is over. Raises ControlError.

    After a restart we go on behind what we have. Of an output that was capped meanwhile, some may come again.
    """
    seen = 0

    def ask() -> Iterator[bytes]:
        return client.stream(f"/v1/runs/{quote(run_id)}/logs", {"follow": "1", "offset": str(seen)})

    for block in _through_restarts(ask):
        seen += len(block)
        yield block


def _through_restarts(ask: Callable[[], Iterator[T]]) -> Iterator[T]:
    """What `ask` yields, asked again when it breaks off, unless runnerd stays away for AWAY_MAX_S."""
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
            if give_up_at is None or error.status not in _AWAY or now > give_up_at:
                raise
            time.sleep(_RETRY_S)  # nothing tells a client that a socket is back
