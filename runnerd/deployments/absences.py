"""Finds out of many deployments at once which of them the API does not have, so that each is created without a read.

Invariants: what was found out is used within ABSENT_FOR_S, because another client may create the same deployment, and
an upsert replaces its schedules; where an answer leaves a doubt the deployment is read by itself; so is each of a few.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from runnerd.prefect_api.client import PrefectApi

ABSENT_FOR_S = 10.0  # about as long as it takes to create as many as are asked about
_ASKED_AT_ONCE = 50
_FEW = 5

_Name = tuple[str, str]  # flow and name, by which the API distinguishes deployments


class Absences:
    """Asks about those that are expected; `clock` is monotonic, in seconds."""

    def __init__(self, *, api: PrefectApi, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._expected: dict[str, dict[str, None]] = {}  # the names of each flow, in their order
        self._known: dict[_Name, tuple[bool, float]] = {}  # whether it is absent, and until when that is believed
        self._asking = asyncio.Lock()

    def expect(self, flow: str, name: str) -> None:
        """Note that a deployment will be registered soon."""
        self._expected.setdefault(flow, {})[name] = None

    def forget(self, flow: str, name: str) -> None:
        """Note that the deployment is registered now, or will not be."""
        self._known.pop((flow, name), None)
        names = self._expected.get(flow, {})
        names.pop(name, None)
        if not names:
            self._expected.pop(flow, None)

    def note_new(self, flow: str) -> None:
        """Note that a request of this host has created the flow this very moment: it has no deployment."""
        names = self._expected.get(flow, ())
        if len(names) > _FEW:
            self._note(flow, names, absent=True)

    async def is_absent(self, flow_id: str, flow: str, name: str) -> bool:
        """Whether the API has no such deployment; False where that is not known. Raises ApiAway and ApiDenied."""
        async with self._asking:
            absent, until = self._known.get((flow, name), (False, 0.0))
            if until > self._clock():
                return absent
            asked = [name, *islice(self._not_known(flow, name), _ASKED_AT_ONCE - 1)]
            if len(asked) <= _FEW:
                return False
            missing = await self._api.applier.missing(flow_id, asked)
            self._note(flow, missing, absent=True)
            self._note(flow, set(asked) - missing, absent=False)
            return name in missing

    def _not_known(self, flow: str, but: str) -> Iterator[str]:
        now = self._clock()
        for one in self._expected.get(flow, ()):
            if one != but and self._known.get((flow, one), (False, 0.0))[1] <= now:
                yield one

    def _note(self, flow: str, names: Iterable[str], *, absent: bool) -> None:
        until = self._clock() + ABSENT_FOR_S
        self._known |= {(flow, name): (absent, until) for name in names}
