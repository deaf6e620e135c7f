"""Computes how far this machine's clock is from the API's, by the Date of an answer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from runnerd.prefect_api.values import read_http_date

_DATE_ROUNDING_S = 0.5  # a Date is rounded down to seconds: on average the answer was made this much later


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """Says that this host is `seconds` ahead of the API (negative: behind), plus or minus `doubt_s`."""

    seconds: float
    doubt_s: float

    @property
    def at_least_s(self) -> float:
        """The smallest difference of the clocks that fits the measurement."""
        return max(0.0, abs(self.seconds) - self.doubt_s)


def measured_skew(date: str | None, *, sent: datetime, received: datetime) -> Skew | None:
    """Compute the skew from an answer's Date and the times of its request; None when the Date cannot be used."""
    theirs = read_http_date(date)
    half_s = (received - sent).total_seconds() / 2
    if theirs is None or half_s < 0:
        return None  # half_s: our own clock was set meanwhile
    ahead_s = (sent - theirs).total_seconds() + half_s - _DATE_ROUNDING_S
    return Skew(seconds=ahead_s, doubt_s=half_s + _DATE_ROUNDING_S)
