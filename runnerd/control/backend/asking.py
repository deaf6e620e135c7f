"""Asking the API on behalf of somebody who waits: a busy server is asked again, an absent one is not.

Invariant: what goes wrong is a `Refused`, in words for whoever asked, and never an ApiError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from runnerd.control.contract import Refused
from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.system.ambient import Ambient

T = TypeVar("T")
LIMIT_S = 120.0  # less than a client's, who must not hear that runnerd is the one that does not answer
_TRIES = 4
_PATIENCE_S = 2.0


class Ask:
    """`request` may be called several times: it has to be safe to repeat."""

    def __init__(self, *, ambient: Ambient) -> None:
        self._backoff = ambient.backoff

    async def __call__(self, request: Callable[[], Coroutine[Any, Any, T]]) -> T | Refused:
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self._insist(request)
        except TimeoutError:
            slow = f"Prefect did not answer within {LIMIT_S:g} s; it may have done what was asked all the same"
            return Refused(status=503, detail=f"{slow}: look before you ask again")

    async def _insist(self, request: Callable[[], Coroutine[Any, Any, T]]) -> T | Refused:
        backoff = self._backoff()
        for last in (False,) * _TRIES + (True,):
            try:
                return await request()
            except ApiAway as error:
                if last or not error.answered:
                    detail = f"{error}; try again when `runnerctl status` shows the API as ok"
                    return Refused(status=503, detail=detail)
                await asyncio.sleep(min(_PATIENCE_S, backoff.next_s(error)))
            except ApiDenied as error:
                return Refused(status=503, detail=str(error))
            except ApiRejected as error:
                return Refused(status=422, detail=str(error))
        raise AssertionError("the last try returns")
