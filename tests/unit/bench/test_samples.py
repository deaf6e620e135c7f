"""Statistics of the benchmark."""

from __future__ import annotations

import math

import pytest

from tests.bench.samples import Sample, percentile, summarize


def samples(*values: float) -> list[Sample]:
    return [Sample(value) for value in values]


def test_median_and_range() -> None:
    found = summarize(samples(5.0, 1.0, 3.0, 100.0, 2.0))
    assert (found.count, found.value, found.low, found.high) == (5, 3.0, 1.0, 100.0)
    assert not found.over


def test_the_spread_is_the_distance_of_the_quartiles_by_the_median() -> None:
    found = summarize(samples(1.0, 2.0, 3.0, 4.0, 5.0))
    assert found.quartile_distance == pytest.approx(2.0)
    assert found.spread == pytest.approx(2.0 / 3.0)


@pytest.mark.parametrize(
    ("values", "noise", "steady"),
    [
        ((10.0, 11.0, 12.0), 0.0, True),
        ((10.0, 20.0, 30.0), 0.0, False),
        ((0.010, 0.030, 0.050), 0.05, True),  # wide, and nobody could tell the difference
        ((10.0,), 100.0, False),  # a single shot says nothing of its spread
        ((0.0, 0.0), 0.0, True),
        ((-30.0, 0.0, 30.0), 10.0, False),
    ],
)
def test_what_is_wide_is_repeated(values: tuple[float, ...], noise: float, steady: bool) -> None:
    assert summarize(samples(*values)).is_steady(noise) is steady


def test_a_single_sample_has_no_spread_that_is_known() -> None:
    assert summarize(samples(3.0)).spread == math.inf


def test_mean() -> None:
    assert summarize(samples(0.0, 6.0), "mean").value == 3.0


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        (range(1, 101), 99, 99),
        (range(1, 1001), 99, 990),
        ((7, 5, 9), 99, 9),
        ((7, 5, 9), 50, 7),
        ((4,), 99, 4),
        (range(1, 5), 0, 1),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: float, expected: float) -> None:
    assert percentile(list(values), percent) == expected


def test_p99_of_few_is_the_worst() -> None:
    assert summarize(samples(10.0, 20.0, 400.0), "p99").value == 400.0


@pytest.mark.parametrize(
    ("statistic", "whole", "cut", "over"),
    [
        ("median", 2, 1, False),
        ("median", 1, 1, True),
        ("median", 1, 2, True),
        ("mean", 5, 1, True),
        ("p99", 5, 1, True),
        ("p99", 5, 0, False),
    ],
)
def test_a_figure_that_rests_on_a_time_limit_is_a_lower_bound(statistic: str, whole: int, cut: int, over: bool) -> None:
    found = [Sample(1.0)] * whole + [Sample(60.0, whole=False)] * cut
    assert summarize(found, statistic).over is over  # type: ignore[arg-type]
