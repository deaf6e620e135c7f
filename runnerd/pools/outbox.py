"""Sends what Prefect may know and nothing depends on: notes of runs and events of this host's workers.

Invariant: nothing waits for this; what is put here is sent in order while the API answers, and what the API rejects is
dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

_WAITING_MAX = 2000  # the oldest are dropped first

Send = Callable[[], Awaitable[None]]


class Outbox:
    """Holds requests until the API has answered them."""

    def __init__(self, *, ambient: Ambient) -> None:
        self._backoff = ambient.backoff
        self._log = ambient.log
        self._contained = Containment(log=ambient.log, loop="outbox")
        self._waiting: deque[tuple[str, Send]] = deque(maxlen=_WAITING_MAX)
        self._filled = asyncio.Event()

    def put(self, what: str, send: Send) -> None:
        """Have `send` awaited later; `what` names it in the log."""
        self._waiting.append((what, send))
        self._filled.set()

    async def run(self) -> None:
        """Send for ever, in order."""
        backoff = self._backoff()
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                first = what, send = self._waiting[0]
                try:
                    with self._contained.item(what):
                        await send()
                    backoff.reset()
                except ApiRejected as error:
                    self._log.debug(f"cannot send {what}", why=str(error))
                except (ApiAway, ApiDenied) as error:
                    await asyncio.sleep(backoff.next_s(error))
                    continue
                if self._waiting and self._waiting[0] is first:  # else a full queue has dropped it meanwhile
                    self._waiting.popleft()
