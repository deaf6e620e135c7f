"""What a round does, all of it from its seed: which runs there are, which are cancelled, and what breaks when.

Pure. Times are seconds from the creation of the round's runs, or of a daemon's life where a `Death` has them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.kits.fault_proxy import DAEMON, FLOW, Fault, acted, answer, drop, garbage, half, hang, login, lost, slow

SPAN_S = 7.0  # faults begin within this: a cold start takes two to four seconds, so runs are in every phase meanwhile
POOLED = {"pooled": "quick", "pooled-leads": "leads"}  # kinds that come by a work pool, and their flows
KINDS = (
    *("quick", "raises", "exits", "segv", "sleeps", "stubborn", "leaves", "leads", "overruns", "broken", *POOLED),
    "limited",
)
ENDLESS = ("sleeps", "stubborn", "leads", "pooled-leads")  # end only when somebody cancels them
_WEIGHTS = (6, 1, 2, 2, 6, 2, 2, 2, 2, 1, 4, 3, 2)


@dataclass(frozen=True)
class Cancel:
    """Somebody asks for the run's end, `delay_s` after it is that far."""

    how: str  # "api", "ctl", "now"
    when: str  # "created", "claimed", "begun"
    delay_s: float

    def __str__(self) -> str:
        return f"cancelled by {self.how} {self.delay_s:.1f}s after {self.when}"


@dataclass(frozen=True)
class Wanted:
    """One run."""

    kind: str
    cancel: Cancel | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.cancel}" if self.cancel else self.kind


@dataclass(frozen=True)
class Death:
    """How a life of the daemon ends: by SIGKILL at its nth journal write or API call, or after `at_s`."""

    what: str  # "write", "call", "time"
    n: int = 0
    when: str = "before"
    at_s: float = 0.0
    path: str = ""  # only calls whose path this expression is found in count

    def __str__(self) -> str:
        if self.what == "time":
            return f"daemon killed after {self.at_s:.1f}s"
        return f"daemon killed {self.when} {self.what} {self.n}{' of ' + self.path if self.path else ''}"


@dataclass(frozen=True)
class SpawnerKill:
    """SIGKILL of the spawner, when some run is first seen in this phase, or at that time."""

    at_s: float
    phase: str = ""

    def __str__(self) -> str:
        return f"spawner killed at {self.phase or f'{self.at_s:.1f}s'}"


@dataclass(frozen=True)
class Window:
    """Something is broken from `at_s` on for `for_s`."""

    what: str  # "api", "refuse", "full", "jump", "stop"
    at_s: float
    for_s: float
    fault: Fault | None = None
    who: str | None = None
    path: str = ""
    first: int = 1
    count: int | None = None
    jump_s: float = 0.0

    @property
    def hits_flows(self) -> bool:
        return self.what == "refuse" or (self.what == "api" and self.who != DAEMON)

    def __str__(self) -> str:
        words = self.what
        if self.fault is not None:
            more = self.fault.status or self.fault.seconds or ""
            nth = f" {self.count}x from {self.first}" if self.count else ""
            words = f"api {self.fault.kind} {more} for {self.who or 'all'} {self.path}{nth}".replace("  ", " ")
        if self.jump_s:
            words = f"clock {self.jump_s:+.0f}s"
        return f"{words.strip()} at {self.at_s:.1f}s for {self.for_s:.1f}s"


@dataclass(frozen=True)
class Plan:
    """A round."""

    name: str
    major: int
    runs: tuple[Wanted, ...]
    lives: tuple[Death, ...] = ()  # the life after the last of these is clean
    spawner: tuple[SpawnerKill, ...] = ()
    windows: tuple[Window, ...] = ()

    @property
    def hits_flows(self) -> bool:
        return any(window.hits_flows for window in self.windows)

    @property
    def fills_disk(self) -> bool:
        return any(window.what == "full" for window in self.windows)

    @property
    def refuses(self) -> bool:
        """Whether the API says that a request itself is wrong."""
        return any(window.fault is not None and window.fault.status in (409, 422) for window in self.windows)

    def faults(self) -> list[str]:
        """What is injected, a name a fault, for counting."""
        found = [f"daemon killed at a {'time' if life.what == 'time' else life.what}" for life in self.lives]
        found += ["spawner killed" for _ in self.spawner]
        for window in self.windows:
            found.append(
                f"api {window.fault.kind} {window.fault.status or ''}".strip() if window.fault else window.what
            )
        return found

    def __str__(self) -> str:
        runs = ", ".join(map(str, self.runs))
        return f"[{runs}] " + ("; ".join(map(str, (*self.lives, *self.spawner, *self.windows))) or "no fault")


def make_plan(seed: int, major: int) -> Plan:
    """The round of this seed."""
    rng = random.Random(seed)
    runs = _runs(rng, major)
    makers = [maker for maker, chance in _MAKERS if rng.random() < chance] or [_deaths]
    plan = Plan(name=f"seed {seed}", major=major, runs=runs)
    for maker in makers:
        plan = maker(rng, plan)
    return plan


def _runs(rng: random.Random, major: int) -> tuple[Wanted, ...]:
    runs: list[Wanted] = []
    for _ in range(rng.randint(1, 4)):
        kind = rng.choices(KINDS, _WEIGHTS)[0]
        if kind == "limited" and major < 3:
            kind = "quick"
        wanted = Wanted(kind)
        if kind in ENDLESS or (kind in ("quick", "pooled") and rng.random() < 0.15):
            wanted = replace(wanted, cancel=_cancel(rng))
        runs.append(wanted)
    if any(run.kind == "limited" for run in runs) and len(runs) < 4:
        runs.append(Wanted("limited"))  # one alone would never wait for a slot
    return tuple(runs)


def _cancel(rng: random.Random) -> Cancel:
    how = rng.choice(("api", "api", "ctl", "now"))
    when = rng.choice(("created", "claimed", "claimed", "begun", "begun", "begun"))
    if how != "api" and when == "created":
        when = "claimed"  # runnerctl can end what this host has
    return Cancel(how=how, when=when, delay_s=round(rng.choice((0.0, rng.uniform(0.0, 3.0))), 2))


def _deaths(rng: random.Random, plan: Plan) -> Plan:
    lives = tuple(_death(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3))))
    return replace(plan, lives=lives)


def _death(rng: random.Random) -> Death:
    what = rng.choice(("write", "write", "call", "call", "time"))
    when = rng.choice(("before", "after"))
    if what == "time":
        return Death(what, at_s=round(rng.uniform(0.2, SPAN_S), 2))
    if what == "write":
        return Death(what, n=rng.randint(1, 14), when=when)
    path = rng.choice(("", "set_state$", "flow_runs/", "get_scheduled_flow_runs$"))
    return Death(what, n=rng.randint(1, 12 if not path else 4), when=when, path=path)


def _spawner(rng: random.Random, plan: Plan) -> Plan:
    at_s = round(rng.uniform(0.0, SPAN_S), 2)
    phase = rng.choice(("", "", "starting", "running", "stopping"))
    kills = [SpawnerKill(at_s, phase)]
    if rng.random() < 0.25:
        kills.append(SpawnerKill(round(rng.uniform(0.0, SPAN_S), 2)))
    return replace(plan, spawner=tuple(kills))


def _with(plan: Plan, *windows: Window) -> Plan:
    return replace(plan, windows=(*plan.windows, *windows))


def _api(rng: random.Random, plan: Plan) -> Plan:
    return _with(plan, *(_api_window(rng) for _ in range(rng.choice((1, 1, 2, 3)))))


def _api_window(rng: random.Random) -> Window:
    who = rng.choices((DAEMON, FLOW, None), (8, 1, 1))[0]
    path = rng.choice(("", "", "set_state$", "set_state$", "flow_runs/[0-9a-f-]+$", "flow_runs/filter$", "get_sched"))
    if rng.random() < 0.1:
        return Window("refuse", round(rng.uniform(0, SPAN_S), 2), round(rng.uniform(0.2, 1.5), 2))
    fault = _fault(rng) if who == DAEMON else rng.choice((answer(503), answer(502), lost(), half(), drop(), slow(0.5)))
    at_s, for_s = round(rng.uniform(0.0, SPAN_S), 2), round(rng.uniform(0.3, 3.0), 2)
    if fault.forwards and rng.random() < 0.7:  # an answer lost once, wherever in the round that call is made
        return Window("api", 0.0, 20.0, fault, who, path, first=rng.randint(1, 3), count=rng.randint(1, 2))
    return Window("api", at_s, for_s, fault, who, path)


def _fault(rng: random.Random) -> Fault:
    later = rng.choice((None, "1", "date"))
    return rng.choice(
        (
            answer(rng.choice((401, 403, 404, 408, 425))),
            answer(rng.choice((409, 422))),
            answer(rng.choice((429, 503)), retry_after=later),
            answer(rng.choice((500, 502, 503, 504))),
            acted(rng.choice((500, 502, 503, 504))),
            acted(rng.choice((408, 503)), retry_after=later),
            lost(),
            lost(),
            half(),
            drop(),
            garbage(),
            hang(),
            slow(round(rng.uniform(0.3, 2.0), 2)),
            login(),
        )
    )


def _full(rng: random.Random, plan: Plan) -> Plan:
    return _with(plan, Window("full", round(rng.uniform(0.0, SPAN_S), 2), round(rng.uniform(0.5, 3.0), 2)))


def _jump(rng: random.Random, plan: Plan) -> Plan:
    jump_s = rng.choice((-3600.0, 3600.0))
    at_s, for_s = round(rng.uniform(0.0, SPAN_S), 2), round(rng.uniform(0.5, 5.0), 2)
    return _with(plan, Window("jump", at_s, for_s, jump_s=jump_s))


def _stop(rng: random.Random, plan: Plan) -> Plan:
    return _with(plan, Window("stop", round(rng.uniform(0.0, SPAN_S), 2), round(rng.uniform(0.3, 3.0), 2)))


_MAKERS = ((_deaths, 0.6), (_spawner, 0.2), (_api, 0.5), (_full, 0.1), (_jump, 0.12), (_stop, 0.12))
