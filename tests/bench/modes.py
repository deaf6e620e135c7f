"""How much is measured: the full, the quick and the smoke mode, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.bench import rows
from tests.bench.rows import COLD, RUNNING, SERVE, WARM, Row


@dataclass(frozen=True, slots=True)
class Burst:
    count: int
    times: int = 1


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """What one contender does between its start and its end. `poll_s`: None leaves every default."""

    name: str
    limit: int
    poll_s: float | None = None
    idle_s: float = 0.0
    adhoc: int = 0
    late: int = 0
    concurrent: tuple[int, ...] = ()
    polite: int = 0
    stubborn: int = 0
    stubborn_of: tuple[str, ...] = RUNNING
    bursts: tuple[Burst, ...] = ()
    at_most_s: float = 3600.0  # a contender that hangs may not take the time of the others
    contenders: tuple[str, ...] = RUNNING
    majors: tuple[int, ...] = (3,)

    def rows(self) -> list[Row]:
        """The rows that its samples go to."""
        found = [rows.IDLE_PSS] if self.idle_s else []
        if self.adhoc:
            found.append(rows.ADHOC if self.poll_s is None else rows.ADHOC_1S)
        found += [rows.burst_row(burst.count, self.limit) for burst in self.bursts]
        found += [rows.memory_row(count) for count in self.concurrent]
        found += [rows.CANCEL_GONE, rows.CANCEL_REPORTED] if self.polite else []
        found += [rows.STUBBORN] if self.stubborn else []
        found += [rows.LATE, rows.LATE_P99] if self.late else []
        return found

    def contenders_of(self, row: Row) -> tuple[str, ...]:
        """Of whom the row is measured."""
        of = self.stubborn_of if row.key == rows.STUBBORN.key else self.contenders
        return tuple(who for who in self.contenders if who in of)

    def only(self, keys: set[str]) -> SessionPlan:
        """The part of it that adds samples to the rows with these keys."""
        cancels = {rows.CANCEL_GONE.key, rows.CANCEL_REPORTED.key}
        sleeping = bool(keys & (cancels | {rows.STUBBORN.key}))
        concurrent = tuple(n for n in self.concurrent if rows.memory_key(n) in keys)
        return replace(
            self,
            idle_s=self.idle_s if rows.IDLE_PSS.key in keys else 0.0,
            adhoc=self.adhoc if keys & {rows.ADHOC.key, rows.ADHOC_1S.key} else 0,
            late=self.late if rows.LATE.key in keys else 0,
            # Runs that are cancelled are those of the first memory figure.
            concurrent=concurrent or (self.concurrent[:1] if sleeping else ()),
            polite=self.polite if keys & cancels else 0,
            stubborn=self.stubborn if rows.STUBBORN.key in keys else 0,
            bursts=tuple(one for one in self.bursts if rows.burst_key(one.count, self.limit) in keys),
        )


@dataclass(frozen=True, slots=True)
class QuietPlan:
    """All contenders idle at once, each behind a counting proxy; `sizes`: deployments of each."""

    windows: int
    window_s: float
    sizes: tuple[int, ...]

    @property
    def needs_s(self) -> float:
        """Time below which it is not begun: for the starts, for registering, and for one window at least."""
        return self.window_s + 40 + sum(self.sizes) * 0.1


@dataclass(frozen=True, slots=True)
class Mode:
    """`seconds`: when the document is there at the latest; `repeats`: more rounds at most for wide figures."""

    name: str
    words: str
    seconds: float
    rounds: int
    repeats: int
    sessions: tuple[SessionPlan, ...]
    quiet: QuietPlan
    floor_times: int

    def timed_rows(self, major: int) -> list[Row]:
        """The rows of the table for one major version of Prefect, in the order of the document."""
        found = {row.key: row for plan in self.sessions if major in plan.majors for row in plan.rows()}
        if major == 3:
            found |= {row.key: row for row in (rows.IDLE_CPU, rows.REQUESTS, rows.REQUESTS_POOL, rows.REQUESTS_BUSY)}
        order = ("adhoc", "burst", "memory", "cancel", "stubborn", "late", "idle", "requests")
        return sorted(found.values(), key=lambda row: order.index(row.key.partition("-")[0]))

    def growth_rows(self) -> list[Row]:
        by_size = [rows.growth_rows(size) for size in self.quiet.sizes]
        return [row for same in zip(*by_size, strict=True) for row in same]


OF_RUNNERD = (COLD, WARM)  # the grace of the others is half a minute, which a quick benchmark has not
OF_BOTH = (COLD, SERVE)  # what is measured of Prefect 2

FULL = Mode(
    name="full",
    words="all counts, three rounds",
    seconds=4 * 3600,
    rounds=3,
    repeats=2,
    sessions=(
        SessionPlan("default", 110, idle_s=10, adhoc=5, late=20, concurrent=(8, 32, 100), polite=3, stubborn=3),
        SessionPlan("fast", 8, poll_s=1, adhoc=5, bursts=(Burst(40),)),
        SessionPlan("wide", 16, poll_s=1, bursts=(Burst(200),)),
        SessionPlan("default-2", 10, idle_s=10, adhoc=3, concurrent=(8,), polite=3, contenders=OF_BOTH, majors=(2,)),
        SessionPlan("fast-2", 8, poll_s=1, bursts=(Burst(16),), contenders=OF_BOTH, majors=(2,)),
    ),
    quiet=QuietPlan(windows=5, window_s=60, sizes=(1, 100, 1000)),
    floor_times=3,
)
QUICK = Mode(
    name="quick",
    words="smaller counts and one round, to end within ten minutes",
    seconds=600,
    rounds=1,
    repeats=4,
    sessions=(
        SessionPlan(
            "default",
            16,
            at_most_s=200,
            idle_s=2,
            adhoc=2,
            late=3,
            concurrent=(8,),
            polite=2,
            stubborn=2,
            stubborn_of=OF_RUNNERD,
        ),
        SessionPlan("fast", 8, at_most_s=150, poll_s=1, adhoc=2, bursts=(Burst(10, times=2),)),
        SessionPlan(
            "default-2",
            10,
            at_most_s=150,
            idle_s=4,
            adhoc=2,
            concurrent=(8,),
            polite=2,
            contenders=OF_BOTH,
            majors=(2,),
        ),
        SessionPlan(
            "fast-2", 8, at_most_s=150, poll_s=1, bursts=(Burst(10, times=2),), contenders=OF_BOTH, majors=(2,)
        ),
    ),
    quiet=QuietPlan(windows=3, window_s=20, sizes=(1, 100)),
    floor_times=2,
)
SMOKE = Mode(
    name="smoke",
    words="tiny counts that only prove that the harness works; the figures mean nothing",
    seconds=600,
    rounds=1,
    repeats=0,
    sessions=(
        SessionPlan("default", 8, idle_s=1, adhoc=1, late=1, concurrent=(2,), polite=1, stubborn=1),
        SessionPlan("fast", 2, poll_s=1, adhoc=1, bursts=(Burst(3),)),
        SessionPlan("default-2", 4, idle_s=1, adhoc=1, concurrent=(2,), polite=1, contenders=OF_BOTH, majors=(2,)),
    ),
    quiet=QuietPlan(windows=2, window_s=5, sizes=(1, 3)),
    floor_times=1,
)
MODES = {mode.name: mode for mode in (FULL, QUICK, SMOKE)}
