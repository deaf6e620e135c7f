"""Calls Prefect's API while a client of the control API waits: retries a busy server, gives up on an absent one.

Invariant: every ApiError becomes a `Refused` value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from runnerd.control.contract import Refused
from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.core.units import format_duration
from runnerd.system.ambient import Ambient

T = TypeVar("T")
LIMIT_S = 120.0  # below the client's limit, so that the client learns that Prefect is slow, and not runnerd
_RETRIES = 4
_RETRY_WAIT_MAX_S = 2.0


class ApiCaller:
    """Calls `request` until the API answers; `request` must be safe to repeat, and `reads` if it changes nothing."""

    def __init__(self, *, ambient: Ambient) -> None:
        self._backoff = ambient.backoff

    async def __call__(
        self, request: Callable[[], Coroutine[Any, Any, T]], *, reads: bool = False, limit_s: float = LIMIT_S
    ) -> T | Refused:
        try:
            async with asyncio.timeout(limit_s):
                return await self._retry(request, reads=reads)
        except TimeoutError:
            slow = f"Prefect did not answer within {format_duration(limit_s)}"
            return Refused(status=503, detail=f"{slow}; {_advise(unsure=not reads)}")

    async def _retry(self, request: Callable[[], Coroutine[Any, Any, T]], *, reads: bool) -> T | Refused:
        backoff = self._backoff()
        for last in (False,) * _RETRIES + (True,):
            try:
                return await request()
            except ApiAway as error:
                if last or not error.answered:
                    return Refused(status=503, detail=f"{error}; {_advise(unsure=error.unsure and not reads)}")
                await asyncio.sleep(min(_RETRY_WAIT_MAX_S, backoff.next_s(error)))
            except ApiDenied as error:
                return Refused(status=503, detail=str(error))
            except ApiRejected as error:
                return Refused(status=422, detail=str(error))
        raise AssertionError("the last try returns")


def _advise(*, unsure: bool) -> str:
    """Say what to do about a request without an answer; `unsure`: it may have changed something."""
    if unsure:
        return "the change may have been made: check before you try again, once `runnerctl status` shows the API as ok"
    return "try again when `runnerctl status` shows the API as ok"
