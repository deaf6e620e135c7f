"""Measures runnerd beside Prefect's own, and writes docs/benchmarks.md, .json and .svg: `make bench`.

BENCH=quick ends within ten minutes, BENCH=smoke only tries the harness; the default is full, which takes hours.
BENCH_MINUTES= gives it another time.
BENCH=report measures nothing and writes the document of the last raw figures again, as after an edit of OBSTACLES in
rows.py. Ctrl-C ends all that was started and writes nothing.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from tests.bench.conduct import Benchmark, describe
from tests.bench.modes import MODES, Mode
from tests.bench.report import write_report
from tests.bench.results import Results
from tests.bench.waiting import Deadline, OutOfTime
from tests.kits.bench import BIN
from tests.kits.checkout import ROOT

RESERVE_S = 35.0  # for ending what runs when the time is over, and for writing
ALARM_S = 15.0  # after the deadline: whatever still waits then has no limit of its own


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP interrupt once; a second one does not interrupt the cleaning up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """OutOfTime after so many seconds, wherever the program is."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def chosen_mode(environ: Mapping[str, str]) -> Mode | None:
    """The mode that is asked for, with the time that it is given; None for one that is not known."""
    mode, minutes = MODES.get(environ.get("BENCH") or "full"), environ.get("BENCH_MINUTES")
    return replace(mode, seconds=60 * float(minutes)) if mode is not None and minutes else mode


def measure(mode: Mode, results: Results) -> Deadline:
    deadline = Deadline(mode.seconds - RESERVE_S)

    def say(text: str) -> None:
        minutes, seconds = divmod(int(deadline.spent_s), 60)
        print(f"{minutes:3d}:{seconds:02d}  {text}", flush=True)

    say(f"measuring ({mode.name}: {mode.words}); at the latest after {mode.seconds / 60:.0f} minutes")
    benchmark = Benchmark(mode=mode, results=results, deadline=deadline, say=say)
    try:
        with alarm(deadline.left_s + ALARM_S):
            benchmark.run()
    except OutOfTime:
        results.leave_out("a part that did not end with the time of the benchmark")
    return deadline


def rewrite(docs: Path) -> int:
    """Write the document of the raw figures that are there."""
    try:
        results = Results.read(json.loads((docs / "benchmarks.json").read_text()))
    except FileNotFoundError:
        print("cannot write the document: nothing was measured yet; run: make bench", file=sys.stderr)
        return 1
    write_report(results, MODES[results.about["mode"]], docs)
    return 0


def main(docs: Path = ROOT / "docs") -> int:
    if os.environ.get("BENCH") == "report":
        return rewrite(docs)
    try:
        mode = chosen_mode(os.environ)
    except ValueError:
        print(f"cannot measure: BENCH_MINUTES={os.environ['BENCH_MINUTES']} is no number", file=sys.stderr)
        return 2
    if mode is None:
        print(f"cannot measure: BENCH={os.environ['BENCH']} is none of {', '.join(MODES)}, report", file=sys.stderr)
        return 2
    if not (BIN / "runnerd").exists():
        print("cannot measure: there is no .venv-lean; run: make bench", file=sys.stderr)
        return 1
    results, began = Results(), time.time()
    results.about["load"] = round(os.getloadavg()[0], 1)
    try:
        with interruptible():
            deadline = measure(mode, results)
    except KeyboardInterrupt:
        print("interrupted; all that was started has been ended, and nothing is written", file=sys.stderr)
        return 130
    if not results.samples:
        print("nothing could be measured:", *results.left_out, sep="\n  ", file=sys.stderr)
        return 1
    describe(results, deadline, began)
    for path in write_report(results, mode, docs):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
