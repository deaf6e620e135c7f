"""How far this machine's clock is from that of the API, as the Date of an answer tells. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

_HALF_A_SECOND = 0.5  # a Date has whole seconds, so on average it is this much older than it says


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """`seconds` we are ahead of the API (behind: negative), give or take `doubt_s`."""

    seconds: float
    doubt_s: float

    @property
    def at_least_s(self) -> float:
        """How far apart the clocks are for sure."""
        return max(0.0, abs(self.seconds) - self.doubt_s)


def measured_skew(date: str | None, *, sent: datetime, received: datetime) -> Skew | None:
    """From the times between which the answer was made; None where its Date says nothing."""
    try:
        theirs = parsedate_to_datetime(date or "")
    except (TypeError, ValueError):
        return None
    half_s = (received - sent).total_seconds() / 2
    if theirs.tzinfo is None or half_s < 0:
        return None  # nobody knows whose time that is, or our own clock was set meanwhile
    ahead_s = (sent - theirs).total_seconds() + half_s - _HALF_A_SECOND
    return Skew(seconds=ahead_s, doubt_s=half_s + _HALF_A_SECOND)
