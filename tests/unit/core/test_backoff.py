"""The delays between retries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.core.backoff import ANSWERED_FAILURES_MAX, MAINTENANCE_S, Backoff, Patience
from runnerd.core.errors import ApiAway, ApiDenied, ApiError

AWAY = ApiAway("away")


def waits(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next_s(AWAY) for _ in range(count)]


def test_waits_double_up_to_their_cap() -> None:
    assert waits(Backoff(first_s=0.5, cap_s=6.0, uniform=lambda: 1.0), 6) == [0.5, 1.0, 2.0, 4.0, 6.0, 6.0]


def test_waits_are_drawn_from_their_upper_half() -> None:
    assert waits(Backoff(first_s=1.0, cap_s=8.0, uniform=lambda: 0.0), 5) == [0.5, 1.0, 2.0, 4.0, 4.0]


def test_what_worked_starts_small_again() -> None:
    backoff = Backoff(first_s=1.0, cap_s=8.0, uniform=lambda: 1.0)
    assert waits(backoff, 3) == [1.0, 2.0, 4.0]
    backoff.reset()
    assert waits(backoff, 1) == [1.0]


def test_a_week_of_failures_does_not_overflow() -> None:
    assert waits(Backoff(uniform=lambda: 1.0), 5000)[-1] == 30.0


def test_a_wish_of_the_server_is_granted_and_spread() -> None:
    wish = ApiAway("busy", answered=True, retry_after_s=120.0)
    assert Backoff(cap_s=30.0, uniform=lambda: 0.0).next_s(wish) == 120.0
    assert Backoff(cap_s=30.0, uniform=lambda: 1.0).next_s(wish) == 144.0


def test_a_wish_for_now_is_not_taken_literally() -> None:
    now = ApiAway("busy", answered=True, retry_after_s=0.0)
    assert Backoff(first_s=0.5, uniform=lambda: 0.0).next_s(now) == 0.5


def test_a_denial_waits_long_from_the_start() -> None:
    assert Backoff(first_s=0.5, cap_s=30.0, uniform=lambda: 1.0).next_s(ApiDenied("401")) == 30.0


@given(st.lists(st.sampled_from(["away", "denied", "wish", "ok"]), max_size=60), st.floats(0, 1, exclude_max=True))
def test_no_wait_is_out_of_bounds(troubles: list[str], drawn: float) -> None:
    backoff = Backoff(first_s=0.5, cap_s=30.0, uniform=lambda: drawn)
    errors = {"away": AWAY, "denied": ApiDenied("no"), "wish": ApiAway("busy", retry_after_s=60.0)}
    for trouble in troubles:
        if trouble == "ok":
            backoff.reset()
        else:
            assert 0.25 <= backoff.next_s(errors[trouble]) <= 72.0


def test_delays_without_jitter() -> None:
    backoff = Backoff(first_s=2.0, cap_s=7.0, jitter=0.0)
    assert [backoff.next_s() for _ in range(4)] == [2.0, 4.0, 7.0, 7.0]


@pytest.mark.parametrize(("drawn", "delay_s"), [(0.0, 6.0), (0.5, 7.0), (1.0, 8.0)])
def test_jitter_is_the_share_that_is_drawn(drawn: float, delay_s: float) -> None:
    assert Backoff(first_s=8.0, jitter=0.25, uniform=lambda: drawn).next_s() == delay_s


def test_a_bound_of_one_delay_holds_for_those_that_follow() -> None:
    backoff = Backoff(first_s=1.0, cap_s=60.0, jitter=0.0)
    delays = [backoff.next_s(at_least_s=30.0, cap_s=100.0) for _ in range(3)]
    assert [*delays, backoff.next_s(at_least_s=30.0, cap_s=100.0)] == [30.0, 60.0, 100.0, 100.0]
    assert backoff.next_s() == 60.0, "the cap of its own holds again"
    backoff.reset()
    assert backoff.next_s() == 1.0


def test_maintenance_is_no_failure() -> None:
    maintenance = ApiAway("in maintenance", maintenance=True)
    backoff = Backoff(first_s=1.0, cap_s=60.0, uniform=lambda: 1.0)
    assert [backoff.next_s(maintenance) for _ in range(50)] == [MAINTENANCE_S] * 50
    assert waits(backoff, 2) == [1.0, 2.0], "and the failures after it begin small"
    asked = ApiAway("in maintenance", maintenance=True, retry_after_s=120.0)
    assert Backoff(uniform=lambda: 0.0).next_s(asked) == 120.0
    assert Backoff(first_s=0.1, cap_s=5.0, uniform=lambda: 1.0).next_s(maintenance) == 5.0


def failures_until_over(patience: Patience, error: ApiError) -> int | None:
    """How many it takes; None when a hundred are not enough."""
    for number in range(1, 101):
        patience.note(error)
        if patience.over:
            return number
    return None


@pytest.mark.parametrize(
    ("error", "last", "number"),
    [
        (ApiDenied("403", forbidden=True), False, ANSWERED_FAILURES_MAX),
        (ApiDenied("401"), False, None),
        (ApiAway("500", answered=True), False, ANSWERED_FAILURES_MAX),
        (ApiAway("503", answered=True, later=True), False, 2 * ANSWERED_FAILURES_MAX),
        (ApiAway("500", answered=True), True, 1),
        (ApiAway("503", answered=True, later=True), True, 1),
        (AWAY, False, None),
        (AWAY, True, None),
        (ApiAway("503", answered=True, maintenance=True), True, None),
    ],
)
def test_only_answered_failures_are_a_refusal(error: ApiError, last: bool, number: int | None) -> None:
    assert failures_until_over(Patience(last=last), error) == number
