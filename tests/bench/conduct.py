"""Conducts the benchmark: servers, rounds, the order of the contenders, repetitions, and the end in time."""

from __future__ import annotations

import contextlib
import http.client
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.bench import rows
from tests.bench.floor import measure_floor
from tests.bench.measuring import machine
from tests.bench.modes import Mode, SessionPlan
from tests.bench.quiet import measure_quiet
from tests.bench.results import Results
from tests.bench.sessions import run_session
from tests.bench.waiting import Deadline, NotReached, OutOfTime
from tests.kits.prefect_servers import PrefectServer, running_server

# What ends a part: its limits, a contender or server that has died, an answer that is none.
FAILURES = (NotReached, OSError, psutil.Error, http.client.HTTPException, LookupError, ValueError)
LEAST_S = 25.0  # nothing is begun with less time left
MAJORS = (3, 2)
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One session that is to be run."""

    plan: SessionPlan
    who: str
    major: int


def steps_of(mode: Mode, number: int, major: int) -> list[Step]:
    """The sessions of one round: every contender is first, second, ... in its turn, also from plan to plan. Pure."""
    found = []
    for place, plan in enumerate(mode.sessions):
        shift = (number + place) % len(plan.contenders)
        order = plan.contenders[shift:] + plan.contenders[:shift]
        found += [Step(plan, who, major) for who in order if major in plan.majors]
    return found


def repetitions(mode: Mode, number: int, major: int, results: Results) -> list[Step]:
    """The parts of a round whose figures are too wide, or were taken only once, or not at all."""
    found = []
    for step in steps_of(mode, number, major):
        its = [row for row in step.plan.rows() if step.who in step.plan.contenders_of(row)]
        wide = {row.samples_of for row in its if not results.is_steady(major, row, step.who)}
        if wide and step.who not in results.absent:
            found.append(Step(step.plan.only(wide), step.who, major))
    return found


class Benchmark:
    """Measures into `results` until all is measured or the time is over."""

    def __init__(self, *, mode: Mode, results: Results, deadline: Deadline, say: Say) -> None:
        self._mode, self._results, self._deadline, self._say = mode, results, deadline, say
        results.about |= {"mode": mode.name, "rounds": mode.rounds, "versions": {}}

    def run(self) -> None:
        try:
            for number in range(self._mode.rounds):
                for major in MAJORS:
                    self._round(
                        f"round {number + 1}", major, steps_of(self._mode, number, major), with_rest=number == 0
                    )
            for number in range(self._mode.repeats):
                for major in MAJORS:
                    steps = repetitions(self._mode, self._mode.rounds + number, major, self._results)
                    self._round(f"repetition {number + 1}", major, steps)
        except OutOfTime:
            self._say("the time is over; what was not reached is said in the document")
            self._results.leave_out(f"whatever else would have come after {self._deadline.spent_s:.0f} s")

    def _round(self, name: str, major: int, steps: list[Step], *, with_rest: bool = False) -> None:
        steps = [step for step in steps if step.who not in self._results.absent]
        if not steps:
            return
        if self._deadline.left_s < LEAST_S:
            raise OutOfTime
        with self._server(major) as server:
            if server is None:
                return
            for step in steps:
                if step.who not in self._results.absent:
                    self._session(name, step, server)
            if with_rest and major == 3:
                self._part("the floor", server, lambda: measure_floor(self._mode, server, *self._end))
                self._quiet(server)

    @property
    def _end(self) -> tuple[Results, Deadline]:
        return self._results, self._deadline

    def _session(self, name: str, step: Step, server: PrefectServer) -> None:
        who = rows.CONTENDERS[step.who]
        before = {key: len(found) for key, found in self._results.samples.items()}

        def session() -> None:
            run_session(step.plan, step.who, server, self._results, self._deadline.part(step.plan.at_most_s))

        self._part(f"{name}, {step.plan.name} settings, {who}", server, session)
        for (major, row, contender), found in self._results.samples.items():
            new = found[before.get((major, row, contender), 0) :]
            if new:
                self._say("    " + row + ": " + ", ".join(f"{sample.value:.3g}" for sample in new))

    def _quiet(self, server: PrefectServer) -> None:
        plan = self._mode.quiet
        if self._deadline.left_s < plan.needs_s:
            self._results.leave_out("idle requests and growth with deployments: not enough time was left")
            return
        self._part("all idle at once", server, lambda: measure_quiet(plan, server, *self._end))

    def _part(self, name: str, server: PrefectServer, measure: Callable[[], None]) -> None:
        """One part of a round; where it fails, the others go on."""
        if self._deadline.left_s < LEAST_S:
            raise OutOfTime
        self._say(f"Prefect {server.version}: {name}")
        try:
            measure()
        except FAILURES as reason:
            self._say(f"    given up: {reason}")
            self._results.leave_out(f"Prefect {server.version}, {name}, from where it was given up: {_short(reason)}")

    @contextlib.contextmanager
    def _server(self, major: int) -> Iterator[PrefectServer | None]:
        """A fresh server; None where it does not start."""
        self._say(f"starting a fresh server of Prefect {major}")
        with contextlib.ExitStack() as stack:
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="runnerd-bench-", ignore_cleanup_errors=True))
            try:
                server = stack.enter_context(running_server(major, Path(home)))
            except pytest.fail.Exception as reason:
                self._results.leave_out(f"Prefect {major}: {_short(reason)}")
                yield None
                return
            versions = self._results.about["versions"]
            versions[str(major)] = server.version
            yield server


def describe(results: Results, deadline: Deadline, began: float) -> None:
    """Note the machine, the day and the time it took."""
    results.about["machine"] = machine({})
    results.about["day"] = time.strftime("%Y-%m-%d", time.gmtime(began))
    results.about["seconds"] = round(deadline.spent_s)


def _short(reason: BaseException) -> str:
    text = " ".join(str(reason).split())
    return text if len(text) <= 300 else f"{text[:300]} ..."
