"""Sends what Prefect may know and nothing depends on: notes of runs and events of this host's workers.

Invariant: nothing waits for this; what is put here is sent in order while the API answers, and what the API rejects, or
answers with failures too often, is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from runnerd.core.backoff import Patience
from runnerd.core.errors import ApiAway, ApiDenied, ApiError, ApiRejected
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

_WAITING_MAX = 2000  # the oldest are dropped first
_REFUSED_DELAY_MAX_S = 5.0

Send = Callable[[], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Waiting:
    kind: str
    what: str
    send: Send
    patience: Patience = field(default_factory=Patience)


class Outbox:
    """Holds requests until the API has answered them."""

    def __init__(self, *, ambient: Ambient) -> None:
        self._new_backoff = ambient.backoff
        self._backoff = ambient.backoff()
        self._log = ambient.log
        self._contained = Containment(log=ambient.log, loop="outbox")
        self._waiting: deque[_Waiting] = deque(maxlen=_WAITING_MAX)
        self._refused: set[str] = set()  # kinds of which the last one was dropped: one more failure drops the next
        self._filled = asyncio.Event()

    def put(self, kind: str, what: str, send: Send) -> None:
        """Have `send` awaited later; `what` names it in the log, `kind` what the API accepts or refuses alike."""
        self._waiting.append(_Waiting(kind, what, send))
        self._filled.set()

    async def run(self) -> None:
        """Send for ever, in order."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                await self._send_first()

    async def _send_first(self) -> None:
        first = self._waiting[0]
        try:
            with self._contained.item(first.what):
                await first.send()
            self._refused.discard(first.kind)
            self._backoff = self._new_backoff()
        except ApiRejected as error:
            self._log.debug(f"cannot send {first.what}", why=str(error))
        except (ApiAway, ApiDenied) as error:
            if not self._is_refused(first, error):
                cap_s = _REFUSED_DELAY_MAX_S if _may_be_refusal(error) else None
                await asyncio.sleep(self._backoff.next_s(error, cap_s=cap_s))
                return
        if self._waiting and self._waiting[0] is first:  # else a full queue has dropped it meanwhile
            self._waiting.popleft()

    def _is_refused(self, first: _Waiting, error: ApiError) -> bool:
        """Whether the API refuses it, so that it is dropped; logged once until the API accepts one of its kind."""
        if not _may_be_refusal(error):
            return False
        first.patience.note(error)
        if not first.patience.over and first.kind not in self._refused:
            return False
        if first.kind not in self._refused:
            self._log.warning(f"cannot send {first.what}; dropping it and others that fail so", why=str(error))
        self._refused.add(first.kind)
        return True


def _may_be_refusal(error: ApiError) -> bool:
    """Whether the API may refuse this for ever; where it says "later", all that waits is sent later."""
    return error.may_be_own and not (isinstance(error, ApiAway) and error.later)
