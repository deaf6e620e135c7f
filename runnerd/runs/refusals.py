"""Remembers which runs could not be claimed, so that they are left alone for a while, longer each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runnerd.core.backoff import Backoff

_FIRST_S = 20.0
_CAP_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """A refused claim; the run is not claimed again before `until` (monotonic seconds)."""

    backoff: Backoff
    until: float
    why: str


class Refusals:
    """The refused claims of this host; `clock` gives monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_run: dict[str, _Refusal] = {}

    def applies_to(self, run_id: str) -> bool:
        """Return whether the run is to be left alone now."""
        return self.reason(run_id) is not None

    def reason(self, run_id: str) -> str | None:
        """Return why the run is to be left alone now; None where it is not."""
        refusal = self._by_run.get(run_id)
        return refusal.why if refusal is not None and self._clock() < refusal.until else None

    def note(self, run_id: str, why: str) -> None:
        """Delay the next claim of a run, longer each time, since every poll offers the run again."""
        now = self._clock()
        for stale in [key for key, refusal in self._by_run.items() if refusal.until + _CAP_S < now]:
            del self._by_run[stale]
        earlier = self._by_run.get(run_id)
        backoff = earlier.backoff if earlier else Backoff(first_s=_FIRST_S, cap_s=_CAP_S, jitter=0.0)
        self._by_run[run_id] = _Refusal(backoff=backoff, until=now + backoff.next_s(), why=why)

    def forget(self, run_id: str) -> None:
        """Forget that the run was refused."""
        self._by_run.pop(run_id, None)
