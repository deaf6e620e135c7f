"""Runs a fuzzing target: a few examples in CI, always the same; other ones for FUZZ_SECONDS by `make fuzz`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

T = TypeVar("T")

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))  # for all targets of one file
ANSWER_MAX_S = 2.0
_ROUND = 300  # examples of one round: within a round Hypothesis looks for examples that are new

# What a text can hold that is not meant for it. Some of these were found, and ended or hung something.
TEXTS = [
    "",
    " ",
    "/",
    "..",
    "a\0b",
    "a\r\nX: 1",
    "\x1b[2J",
    "\x85",
    "\x9b2J",
    "\u202e\u2066",
    "\u2028",
    "\ufeff",
    "\U000e0001",
    "%s%n{}{0}",
    "{{ x }}",
    "$HOME",
    "é" * 300,
    "x" * 501,
    "x" * 60_000,
    "9" * 5000,
    "NaN",
    "null",
    "1e400",
    "infinity",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59.999999-14:00",
    "1us",
    "99999999999y",
    "100000E",
]
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**20, 10**400, 1.5, 1e308, -0.0, 5e-324]


def fuzz(
    values: st.SearchStrategy[T],
    attempt: Callable[[T], None],
    *,
    examples: int,
    found: Sequence[T] = (),
    share: float = 1,
) -> None:
    """Try `found`, which earlier runs found, then `examples` values; by hand, new ones for a share of FUZZ_SECONDS."""
    for value in found:
        attempt(value)
    run_round(values, attempt, examples=examples)
    end, number, tried = time.monotonic() + SECONDS * share, time.time_ns() % 10**9, 0
    while time.monotonic() < end:
        run_round(values, attempt, examples=_ROUND, number=number, is_over=lambda: time.monotonic() >= end)
        number, tried = number + 1, tried + _ROUND
    if SECONDS:
        print(f"{attempt.__name__}: {tried} examples in {SECONDS * share:.0f} s")


def run_round(
    values: st.SearchStrategy[T],
    attempt: Callable[[T], None],
    *,
    examples: int,
    number: int | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    failed = False

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=number is None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(values)
    def run(value: T) -> None:
        # A round of slow examples would overrun its time, and Hypothesis has no other way to end one. A round that has
        # found something goes on: Hypothesis tries that again, smaller, and would call it flaky.
        nonlocal failed
        if failed or not is_over():
            try:
                attempt(value)
            except BaseException:
                failed = True
                raise

    (run if number is None else seed(number)(run))()


@contextmanager
def answered_in_time(
    what: object, *, elsewhere: bool = False, by_hand: bool = SECONDS > 0, limit_s: float = ANSWER_MAX_S
) -> Iterator[None]:
    """Check by hand that the block takes no longer than an answer may; CI machines are slow now and then.

    Other processes have their share of a busy machine: the limit grows by how much slower this process computes at that
    moment than on an idle one. Of what runs in this process, and not `elsewhere`, the processor time counts as well.
    """
    before, cpu_before = time.monotonic(), time.process_time()
    with measured_slowness(after_s=limit_s / 4) as slowness:
        yield
        waited, cpu = time.monotonic() - before, time.process_time() - cpu_before
    cpu -= slowness.cpu_s
    in_time = waited < limit_s * slowness.factor and (elsewhere or cpu < limit_s)
    times = (
        f"took {waited:.1f} s, {cpu:.1f} s of processor time, on a machine {slowness.factor:.1f} times slower than idle"
    )
    assert not by_hand or in_time, f"{times}: {str(what)[:1000]}"


@dataclass
class Slowness:
    """How long work has taken by the clock, and of that on a processor."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def factor(self) -> float:
        return max(1.0, self.wall_s / self.cpu_s) if self.cpu_s else 1.0


@contextmanager
def measured_slowness(*, after_s: float) -> Iterator[Slowness]:
    """Measure how slow this machine is during the block, from `after_s` on: a fast block costs no measuring.

    By work without a pause: the kernel prefers a thread that sleeps most of the time, which would notice no load.
    """
    found, over = Slowness(), threading.Event()

    def measure() -> None:
        began, cpu_before = time.monotonic() + after_s, time.thread_time()
        if over.wait(after_s) and time.monotonic() < began:
            return
        while True:  # once at least, also where this thread has waited for a processor until now
            sum(range(50_000))  # about a millisecond
            if over.is_set():
                break
        found.wall_s, found.cpu_s = time.monotonic() - began, time.thread_time() - cpu_before

    thread = threading.Thread(target=measure, name="slowness", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()
