"""Looks up after each poll what only the words about runs need: the parents of waiting runs, and abandoned runs.

Invariants: a look-up that hangs or fails delays no poll and no start; there is one look-up at a time, each bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable

from runnerd.core.errors import ApiError
from runnerd.polling.parents import Parents
from runnerd.runs.abandoned import AbandonedRuns
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

LOOK_UP_MAX_S = 10.0


class LookUps:
    """Looks up in the background: `begin` asks for it, `run` does it."""

    def __init__(self, *, parents: Parents, abandoned: AbandonedRuns, ambient: Ambient) -> None:
        self._parents = parents
        self._abandoned = abandoned
        # A failure is no fault: the client has logged it, and the next look-up comes after a later poll.
        self._contained = Containment(log=ambient.log, loop="look-ups", passing=(ApiError, TimeoutError))
        self._asked = asyncio.Event()

    def begin(self) -> None:
        """Have everything looked up once more; a poll calls this at its end."""
        # Here and not in look_up(): within a poll, runs that stay on offer may be off offer for a moment.
        self._parents.forget_gone()
        self._asked.set()

    async def run(self) -> None:
        """Look up for ever, whenever a poll has ended."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self.look_up()

    async def look_up(self) -> None:
        """Look up everything that is due, each within LOOK_UP_MAX_S."""
        await self._attempt("parents of waiting runs", self._parents.look_up())
        await self._attempt("abandoned runs", self._abandoned.look_up_if_due())

    async def _attempt(self, name: str, asking: Awaitable[None]) -> None:
        with contextlib.suppress(ApiError, TimeoutError), self._contained.item(name):
            async with asyncio.timeout(LOOK_UP_MAX_S):
                await asking
