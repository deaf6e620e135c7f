"""Collects what was measured: samples, failures, what was left out; and the raw document of it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.bench.rows import Row
from tests.bench.samples import Sample, Summary, summarize


@dataclass(slots=True)
class Results:
    """Samples by (major, row, contender); troubles by (major, contender); `left_out`: reasons in words."""

    samples: dict[tuple[int, str, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    troubles: dict[tuple[int, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    left_out: dict[str, None] = field(default_factory=dict)  # in order, each once
    absent: dict[str, str] = field(default_factory=dict)  # contender: why it is not measured at all
    about: dict[str, Any] = field(default_factory=dict)

    def add(self, major: int, row: str, who: str, value: float, *, whole: bool = True) -> None:
        self.samples[major, row, who].append(Sample(value, whole))

    def trouble(self, major: int, who: str, what: str, count: int = 1) -> None:
        """Count a failure of a contender."""
        if count:
            self.troubles[major, who][what] += count

    def leave_out(self, reason: str) -> None:
        self.left_out[reason] = None

    def summary(self, major: int, row: Row, who: str) -> Summary | None:
        """None where there is no sample."""
        found = self.samples.get((major, row.samples_of, who))
        return summarize(found, row.statistic) if found else None

    def is_steady(self, major: int, row: Row, who: str) -> bool:
        summary = self.summary(major, row, who)
        return summary is not None and summary.is_steady(row.noise)

    def document(self) -> dict[str, Any]:
        """All of it, for docs/benchmarks.json."""
        figures = [
            {
                "prefect": major,
                "row": row,
                "contender": who,
                "samples": [round(sample.value, 6) for sample in samples],
                "lower_bounds": [number for number, sample in enumerate(samples) if not sample.whole],
            }
            for (major, row, who), samples in self.samples.items()
            if samples
        ]
        troubles = [
            {"prefect": major, "contender": who, "failure": what, "count": count}
            for (major, who), counted in self.troubles.items()
            for what, count in counted.items()
        ]
        return {
            "about": self.about,
            "figures": figures,
            "failures": troubles,
            "absent": self.absent,
            "not_measured": list(self.left_out),
        }

    @classmethod
    def read(cls, document: dict[str, Any]) -> Results:
        """The results that such a document was made of."""
        found = cls(about=document["about"], absent=document["absent"])
        for one in document["figures"]:
            for number, value in enumerate(one["samples"]):
                whole = number not in one["lower_bounds"]
                found.add(one["prefect"], one["row"], one["contender"], value, whole=whole)
        for one in document["failures"]:
            found.trouble(one["prefect"], one["contender"], one["failure"], one["count"])
        found.left_out = dict.fromkeys(document["not_measured"])
        return found


def percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else math.inf
