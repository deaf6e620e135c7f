"""pulse.py and backoff.py: who is stuck, and how a trouble with the API is waited out."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.prefect_api.backoff import Backoff, persist
from runnerd.system.watchdog import Pulse
from tests.kits.jump_loop import START_S

AWAY = ApiAway("away")


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_only_a_loop_that_missed_its_own_bound_is_stuck() -> None:
    clock = Clock()
    pulse = Pulse(clock=clock)
    pulse.beat("poll", within_s=10)
    pulse.beat("register", within_s=float("inf"))
    pulse.beat("cancelling", within_s=100)
    clock.now += 10
    assert pulse.stuck() == ()
    clock.now += 1
    assert pulse.stuck() == ("poll",)
    pulse.beat("poll", within_s=10)
    assert pulse.stuck() == ()


def test_a_loop_that_has_ended_promises_nothing() -> None:
    clock = Clock()
    pulse = Pulse(clock=clock)
    pulse.beat("poll", within_s=1)
    clock.now += 5
    pulse.leave("poll")
    pulse.leave("never began")
    assert pulse.stuck() == ()


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


class Api:
    """Fails with each of these, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked_at: list[float] = []

    async def ask(self) -> str:
        self.asked_at.append(asyncio.get_running_loop().time() - START_S)
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def persisting(*errors: Exception) -> tuple[Api, str]:
    api = Api(*errors)
    backoff = Backoff(first_s=1.0, cap_s=8.0, uniform=lambda: 1.0)
    return api, await persist(api.ask, backoff=backoff)


async def test_persist_asks_until_there_is_an_answer() -> None:
    api, answer = await persisting(AWAY, AWAY, ApiDenied("401"), ApiAway("busy", retry_after_s=10.0))
    assert answer == "answer"
    assert api.asked_at == [0.0, 1.0, 3.0, 11.0, 23.0]


async def test_persist_outlives_a_day_of_outage() -> None:
    api, answer = await persisting(*[AWAY] * 10_000)
    assert answer == "answer"
    assert api.asked_at[-1] > 79_000


async def test_persist_lets_a_wrong_request_through() -> None:
    with pytest.raises(ApiRejected):
        await persisting(AWAY, ApiRejected("no", status=422))
