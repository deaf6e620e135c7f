"""Repeats a request to the API while the API is away or denies access.

No run and no loop ends because the API is away. ApiRejected is raised: the same request would be rejected again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runnerd.core.backoff import Backoff
from runnerd.core.errors import ApiAway, ApiDenied

T = TypeVar("T")


async def persist(
    call: Callable[[], Awaitable[T]],
    *,
    backoff: Backoff,
    passing: Callable[[ApiAway | ApiDenied], bool] = lambda _: True,
) -> T:
    """Repeat `call`, which must be safe to repeat, until the API answers. Raises ApiRejected.

    An error that is not `passing` is raised too.
    """
    while True:
        try:
            return await call()
        except (ApiAway, ApiDenied) as error:
            if not passing(error):
                raise
            await asyncio.sleep(backoff.next_s(error))
