"""Sends what Prefect may know and nothing depends on: notes of runs and events of this host's workers.

Invariant: nothing waits for this; what is put here is sent in order while the API answers, and what the API rejects, or
answers with failures too often, is dropped. So is what the API wants to have later, once it has accepted another
instead, or for hours: a single request that gets 503 for ever holds up no other, and an outage loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from runnerd.core.backoff import Patience
from runnerd.core.errors import ApiAway, ApiDenied, ApiError, ApiRejected
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

_WAITING_MAX = 2000  # the oldest are dropped first
_REFUSED_DELAY_MAX_S = 5.0
_LATER_MAX_S = 6 * 3600.0

Send = Callable[[], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Waiting:
    kind: str
    what: str
    send: Send
    patience: Patience = field(default_factory=Patience)
    later_since: float | None = None  # by the clock: when the API first wanted to have it later
    tried_instead: int = 0  # how often it was sent instead of the first


class Outbox:
    """Holds requests until the API has answered them."""

    def __init__(self, *, ambient: Ambient) -> None:
        self._new_backoff = ambient.backoff
        self._backoff = ambient.backoff()
        self._clock = ambient.clock
        self._log = ambient.log
        self._contained = Containment(log=ambient.log, loop="outbox")
        self._waiting: deque[_Waiting] = deque(maxlen=_WAITING_MAX)
        self._refused: set[str] = set()  # kinds of which the last one was dropped: the next one gets no patience
        self._not_before: dict[str, float] = {}  # by kind, by the clock: the Retry-After of the API
        self._filled = asyncio.Event()

    def put(self, kind: str, what: str, send: Send) -> None:
        """Have `send` awaited later; `what` names it in the log, `kind` what the API accepts or refuses alike."""
        self._waiting.append(_Waiting(kind, what, send))
        self._filled.set()

    async def run(self) -> None:
        """Send for ever, in order; but for kinds that the API does not want before a time, which hold up no other."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                now = self._clock()
                self._not_before = {kind: at for kind, at in self._not_before.items() if at > now}
                first = next((one for one in self._waiting if one.kind not in self._not_before), None)
                if first is not None:
                    await self._send_first(first)
                    continue
                self._filled.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(self._not_before.values()) - now):
                        await self._filled.wait()

    async def _send_first(self, first: _Waiting) -> None:
        error = await self._send(first)
        if isinstance(error, ApiError) and not self._is_refused(first, error) and not await self._is_late(first, error):
            cap_s = _REFUSED_DELAY_MAX_S if _may_be_refusal(error) else None
            delay_s = self._backoff.next_s(error, cap_s=cap_s)
            if isinstance(error, ApiAway) and error.retry_after_s is not None and not error.maintenance:
                self._not_before[first.kind] = self._clock() + delay_s
            else:
                await asyncio.sleep(delay_s)
            return
        self._remove(first)

    async def _send(self, one: _Waiting) -> bool | ApiError:
        """Send it; whether the API has accepted it, or the error after which it may be sent again."""
        try:
            with self._contained.item(one.what) as item:
                await one.send()
        except ApiRejected as error:
            self._log.debug(f"cannot send {one.what}", why=str(error))
            return False
        except (ApiAway, ApiDenied) as error:
            return error
        if item.why is not None:
            return False
        self._refused.discard(one.kind)
        self._backoff = self._new_backoff()
        return True

    def _remove(self, one: _Waiting) -> None:
        if one in self._waiting:  # else a full queue has dropped it meanwhile
            self._waiting.remove(one)

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

    async def _is_late(self, first: _Waiting, error: ApiError) -> bool:
        """Whether the API keeps answering "later" to this one alone, so that it is dropped.

        Where the API accepts another instead, this one is not sent any more: the two may be about the same run. Another
        that is rejected proves nothing, since a proxy may reject it in an outage, and is sent again in its turn.
        """
        if not isinstance(error, ApiAway) or not error.later:
            return False
        first.patience.note(error)
        first.later_since = self._clock() if first.later_since is None else first.later_since
        if not first.patience.over and first.kind not in self._refused:
            return False
        other = self._choose_other(first)
        accepted = other is not None and await self._send(other) is True
        if not accepted and self._clock() - first.later_since < _LATER_MAX_S:
            return False
        if first.kind not in self._refused:
            self._log.warning(f"cannot send {first.what}; dropping it", why=str(error))
        if other is not None and accepted:
            self._remove(other)
            if other.kind != first.kind:
                self._refused.add(first.kind)
        return True

    def _choose_other(self, first: _Waiting) -> _Waiting | None:
        """Choose another in turn, of other kinds first; what is new comes before all that were tried."""
        others = [one for one in self._waiting if one is not first]
        other = min(others, key=lambda one: (one.tried_instead, one.kind == first.kind), default=None)
        if other is not None:
            other.tried_instead += 1
        return other


def _may_be_refusal(error: ApiError) -> bool:
    """Whether the API may refuse this for ever; where it says "later", all that waits is sent later."""
    return error.may_be_own and not (isinstance(error, ApiAway) and error.later)
