"""SIGKILL of the daemon at every step of a run's life: each journal write and each API call, before it and after it.

How many steps there are is found out: a step that never comes ends its series. The series that is played first kills
each daemon at its first step, so that one run goes through all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.chaos.chaos_plan import Cancel, Death, Plan, Wanted

if TYPE_CHECKING:
    from tests.chaos.chaos import Chaos

MOST = 40  # no series is that long
# Which write of each life is its last, so that the next one comes a step further: a daemon that finds a run `starting`
# says so once more, which is a write.
EACH_WRITE = {"after": (1, 1, 1, 2, 1, 1, 1, 1), "before": (2, 2, 3, 2, 2, 2, 2, 2)}
RUNS = {
    "quick": Wanted("quick"),
    "pooled": Wanted("pooled"),
    "cancelled": Wanted("leads", Cancel(how="api", when="begun", delay_s=0.0)),
}
ABOUT_THE_RUN = "flow_runs/[0-9a-f]{8}-[0-9a-f-]{27}"
CALLS = {"call": ABOUT_THE_RUN, "poll": "get_scheduled_flow_runs$", "look": "flow_runs/filter$"}
ENOUGH = {"poll": 2, "look": 2}  # of those that are made over and over


class Steps:
    """`only` is what a step's name begins with, as in `quick:write:3:before`."""

    def __init__(self, *, chaos: Chaos, majors: tuple[int, ...], only: str | None) -> None:
        self._chaos = chaos
        self._majors = majors
        self._only = only
        self._over: set[tuple[int, str]] = set()

    def play(self) -> Iterator[None]:
        """Play them, one each time the next is asked for."""
        for name, series, plan_lives in self._steps():
            for major in self._majors:
                if (major, series) in self._over or self._chaos.time_is_up():
                    continue
                if self._only is not None and not name.startswith(self._only):
                    continue
                plan = Plan(name=name, major=major, runs=(RUNS[name.split(":")[0]],), lives=plan_lives)
                repeat = f"python tests/chaos/chaos.py --steps --major {major} --only {name}"
                played = self._chaos.play(plan, repeat=repeat)
                if not any(words.startswith("daemon killed") for words in played.injected):
                    self._over.add((major, series))
                yield

    def _steps(self) -> Iterator[tuple[str, str, tuple[Death, ...]]]:
        """The name of each step, of its series, and the lives of its daemons."""
        for run in RUNS:
            for when, writes in EACH_WRITE.items():
                yield f"{run}:each-write:{when}", "", tuple(Death("write", n=n, when=when) for n in writes)
        for run in RUNS:
            yield f"{run}:each-call:after", "", (Death("call", n=1, when="after", path=ABOUT_THE_RUN),) * 6
        for n in range(1, MOST):
            for run in RUNS:
                for when in ("before", "after"):
                    series = f"{run}:write:{when}"
                    yield f"{run}:write:{n}:{when}", series, (Death("write", n=n, when=when),)
                    yield from self._calls(run, n, when)

    def _calls(self, run: str, n: int, when: str) -> Iterator[tuple[str, str, tuple[Death, ...]]]:
        for what, path in CALLS.items():
            if n <= ENOUGH.get(what, MOST) and not (what == "look" and run != "cancelled"):
                death = Death("call", n=n, when=when, path=path)
                yield f"{run}:{what}:{n}:{when}", f"{run}:{what}:{when}", (death,)
