"""fuzzing.py: an answer that is late is found, and a busy machine is no late answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st

from tests.kits.fuzzing import answered_in_time, measured_slowness, run_round


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)


@contextmanager
def busy(threads: int) -> Iterator[None]:
    """Other threads compute as well, so that each gets a part of the time."""
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    started = [threading.Thread(target=compute, daemon=True) for _ in range(threads)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in started:
            thread.join()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_answer_that_only_waits_is_late(elsewhere: bool) -> None:
    """A thousand times longer than it may take: no load of the machine that runs this explains that."""
    said = r"took .* s, .* s of processor time, on a machine .* times slower than idle: this"
    with (
        pytest.raises(AssertionError, match=said),
        answered_in_time("this", elsewhere=elsewhere, by_hand=True, limit_s=0.002),
    ):
        wait(2.0)


def test_an_answer_that_computes_here_is_late_on_a_busy_machine_too() -> None:
    with busy(8), pytest.raises(AssertionError), answered_in_time("this", by_hand=True, limit_s=0.5):
        before = time.process_time()
        while time.process_time() - before < 1.0:
            sum(range(1000))


def test_an_answer_from_elsewhere_is_not_late_on_a_busy_machine() -> None:
    with busy(8):
        with answered_in_time("this", elsewhere=True, by_hand=True, limit_s=0.4):
            wait(0.6)
        with measured_slowness(after_s=0.0) as slowness:
            wait(0.5)
    assert slowness.factor > 2.0


def test_what_the_last_example_of_a_round_finds_is_no_flake() -> None:
    """Hypothesis tries it again, when the time of the round is over."""
    over = False

    def find(_value: int) -> None:
        nonlocal over
        over = True
        raise ValueError("found")

    with pytest.raises(ValueError, match="found"):
        run_round(st.integers(), find, examples=5, number=1, is_over=lambda: over)
