"""Decides when deployments are tried again whose inspection failed, or that the API rejected.

Invariant: what failed together is tried again together, so that one process inspects it: the delays have no jitter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from runnerd.core.backoff import Backoff
from runnerd.deployments.registry import Key

RETRY_FIRST_S = 10.0
RETRY_MAX_S = 300.0


@dataclass(slots=True)
class _Failed:
    backoff: Backoff
    due: float = 0.0


class Retries:
    """Lists what failed. `clock` is monotonic, in seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: dict[Key, _Failed] = {}
        self._more = asyncio.Event()

    def add(self, key: Key) -> None:
        """Try the deployment again in 10 s; after each failure that follows twice as late, at most after 5 min."""
        backoff = Backoff(first_s=RETRY_FIRST_S, cap_s=RETRY_MAX_S, jitter=0.0)
        one = self._failed.setdefault(key, _Failed(backoff))
        one.due = self._clock() + one.backoff.next_s()
        self._more.set()

    def forget(self, key: Key) -> None:
        """Try the deployment no more: it is registered, or begun anew."""
        self._failed.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._failed.clear()

    async def due(self) -> list[Key]:
        """Wait until some are due, and return them; each is due again only after `add`."""
        while True:
            self._more.clear()
            now = self._clock()
            waiting = {key: one for key, one in self._failed.items() if one.due < float("inf")}
            # With those that failed a little later: one process for all of them.
            due = {key: one for key, one in waiting.items() if one.due <= now + RETRY_FIRST_S / 2}
            if any(one.due <= now for one in due.values()):
                for one in due.values():
                    one.due = float("inf")
                return list(due)
            try:
                async with asyncio.timeout(min(one.due for one in waiting.values()) - now if waiting else None):
                    await self._more.wait()
            except TimeoutError:
                continue
