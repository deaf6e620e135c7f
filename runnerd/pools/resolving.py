"""Has jobs resolved by a process of their own, because a base job template may be made to take for ever (ADR 28).

Invariants: the outcome is a value; a template that has overrun a limit is refused at once for RETRY_S, and any template
of that pool for PAUSE_S, so that one pool holds up the others once.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

from runnerd.pools.job.lookups import Found
from runnerd.pools.job.template import Sources, Unresolvable
from runnerd.pools.job.wire import AgentSources, JobAnswer, read_answer, write_request
from runnerd.system.side_process import Asking, SideFailure

PAUSE_S = 60.0
RETRY_S = 900.0
REQUEST_MAX_BYTES = 8 * 2**20


class _Overrun(NamedTuple):
    """What one pool did; `template`: the hash of its template."""

    template: str
    words: str
    at_s: float


class JobResolver:
    """Resolves jobs through `side`; `clock` gives seconds."""

    def __init__(self, *, side: Asking, clock: Callable[[], float]) -> None:
        self._side = side
        self._clock = clock
        self._overruns: dict[str, _Overrun] = {}  # by pool
        # One request of a pool at a time: the others of a pool that overruns are then refused, not computed as well.
        self._turns: collections.defaultdict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)

    def warm(self) -> None:
        """Prepare for a job that is about to be resolved."""
        self._side.warm()

    async def close(self) -> None:
        """End the process."""
        await self._side.close()

    def problem(self, pool: str) -> str | None:
        """Why jobs of this pool are refused; None while they are not."""
        overrun = self._overruns.get(pool)
        return overrun.words if overrun is not None and self._clock() - overrun.at_s < RETRY_S else None

    async def resolve(self, pool: str, sources: Sources | AgentSources, found: Found) -> JobAnswer:
        """Make the job, or list what has to be looked up first, or say why there is none."""
        async with self._turns[pool]:
            return await self._resolve(pool, sources, found)

    async def _resolve(self, pool: str, sources: Sources | AgentSources, found: Found) -> JobAnswer:
        whose = _whose(pool, sources)
        if refused := self._refuse(pool, sources):
            return Unresolvable(refused)
        try:
            request = write_request(sources, found)
        except RecursionError:
            return Unresolvable(f"cannot resolve {whose}: it is nested too deeply")
        except ValueError as error:
            return Unresolvable(f"cannot resolve {whose}: {error}")
        if len(request) > REQUEST_MAX_BYTES:
            return Unresolvable(f"cannot resolve {whose}: with its variables it is larger than 8 MiB; make it smaller")
        answer = await self._side.ask(request)
        if not isinstance(answer, SideFailure):
            return self._read(whose, answer)
        words = f"cannot resolve {whose}: {answer.words}"
        if answer.overrun:
            words += "; simplify its base job template" if isinstance(sources, Sources) else "; simplify that block"
            self._overruns[pool] = _Overrun(_hash(sources), words, self._clock())
        return Unresolvable(words)

    def _refuse(self, pool: str, sources: Sources | AgentSources) -> str | None:
        overrun = self._overruns.get(pool)
        if overrun is None:
            return None
        since_s = self._clock() - overrun.at_s
        if since_s < PAUSE_S or (since_s < RETRY_S and overrun.template == _hash(sources)):
            return overrun.words
        del self._overruns[pool]
        return None

    def _read(self, whose: str, answer: bytes) -> JobAnswer:
        try:
            return read_answer(answer)
        except ValueError as error:
            return Unresolvable(f"cannot resolve {whose}: {error}")


def _whose(pool: str, sources: Sources | AgentSources) -> str:
    if isinstance(sources, Sources):
        return f"the job template of work pool {pool}"
    return f"the infrastructure block of deployment {sources.deployment}"


def _hash(sources: Sources | AgentSources) -> str:
    part = sources.template if isinstance(sources, Sources) else sources.block and sources.block.data
    return hashlib.sha256(json.dumps(part, default=dict, sort_keys=True).encode()).hexdigest()
