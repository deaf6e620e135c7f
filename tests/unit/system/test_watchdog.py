"""watchdog.py: the pulse of the loops that the watchdog waits for."""

from __future__ import annotations

from runnerd.system.watchdog import Pulse


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
