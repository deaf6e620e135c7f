"""Samples of a figure and what is said of them: median, mean, percentile, quartiles, spread. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Statistic = Literal["median", "mean", "p99"]
WIDE = 0.30  # a spread over this is repeated


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement; not `whole`: the time limit ended it, so that the true value is above `value`."""

    value: float
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Summary:
    """What `count` samples say. `over`: the statistic is a lower bound, because it rests on a sample that was cut."""

    count: int
    value: float
    low: float
    high: float
    spread: float  # distance of the quartiles by the median; infinite for a single sample
    quartile_distance: float
    over: bool = False

    def is_steady(self, noise: float) -> bool:
        """Whether no repetition is called for; quartiles that are `noise` apart (in the row's unit) are near enough."""
        return self.count > 1 and (self.spread <= WIDE or self.quartile_distance <= noise)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was measured, the largest one where there are few."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def summarize(samples: Sequence[Sample], statistic: Statistic = "median") -> Summary:
    """Summarize at least one sample."""
    values = [sample.value for sample in samples]
    middle = statistics.median(values)
    value = {"median": middle, "mean": statistics.fmean(values), "p99": percentile(values, 99)}[statistic]
    distance = _quartile_distance(values)
    if len(values) == 1:
        spread = math.inf
    else:
        spread = distance / abs(middle) if middle else (0.0 if distance == 0 else math.inf)
    return Summary(
        count=len(values),
        value=value,
        low=min(values),
        high=max(values),
        spread=spread,
        quartile_distance=distance,
        over=_rests_on_a_cut_one(samples, statistic),
    )


def _quartile_distance(values: list[float]) -> float:
    if len(values) < 2:
        return 0.0
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return third - first


def _rests_on_a_cut_one(samples: Sequence[Sample], statistic: Statistic) -> bool:
    """A median is a lower bound where half of the samples were cut, a mean or a tail where one was."""
    cut = sum(not sample.whole for sample in samples)
    return 2 * cut >= len(samples) if statistic == "median" else cut > 0
