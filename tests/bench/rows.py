"""What is measured, as data: the rows of the document, the contenders, the targets, and what stands in their way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.bench.samples import Statistic

COLD, WARM, POOL, SERVE, WORKER, FLOOR = "cold", "warm", "pool", "serve", "worker", "floor"
CONTENDERS = {
    COLD: "runnerd, cold",
    WARM: "runnerd, warm",
    POOL: "runnerd, serving a pool",  # its figures stand in rows of their own, under COLD
    SERVE: "flow.serve()",
    WORKER: "prefect worker",
    FLOOR: "no process at all",
}
# The contenders whose runs are timed, in the order of the first round.
RUNNING = (COLD, WARM, SERVE, WORKER)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `targets`: contender to the value that it must not exceed, in `unit`."""

    key: str
    title: str
    unit: str
    decimals: int = 1
    statistic: Statistic = "median"
    noise: float = 0.0  # quartiles so far apart are not repeated, in `unit`
    targets: Mapping[str, float] = field(default_factory=dict)
    how: str = ""
    in_plot: bool = False
    source: str = ""  # the row whose samples this one reads; its own by default

    @property
    def samples_of(self) -> str:
        return self.source or self.key


def burst_key(count: int, limit: int) -> str:
    return f"burst-{count}-{limit}"


def memory_key(runs: int) -> str:
    return f"memory-{runs}"


def growth_key(what: str, deployments: int) -> str:
    return f"growth-{what}-{deployments}"


# The target of 40 runs is given; other counts are held to the same time for each run.
SECONDS_PER_RUN = {WARM: 12 / 40, COLD: 36 / 40}
MEMORY_TARGETS = {8: {WARM: 340.0}}
REGISTER_SECONDS_PER_DEPLOYMENT = 30 / 1000

ADHOC = Row(
    "adhoc", "run created → first line of user code, default settings", "s", 2, noise=0.05,
    targets={WARM: 0.5, COLD: 2.0}, in_plot=True,
    how="From before the request that creates the run to the first statement of the flow.",
)  # fmt: skip
ADHOC_1S = Row(
    "adhoc-1s", "the same with 1 s polling", "s", 2, noise=0.05, targets={WARM: 0.5}, in_plot=True,
    how="`poll_interval: 1s`, `PREFECT_RUNNER_POLL_FREQUENCY=1`, `PREFECT_WORKER_QUERY_SECONDS=1`.",
)  # fmt: skip
CANCEL_GONE = Row(
    "cancel-gone", "polite cancel: asked → process gone", "s", 2, noise=0.05, targets={COLD: 0.5, WARM: 0.5},
    in_plot=True, how="From before the request that proposes Cancelling to the end of the flow's process (pidfd).",
)  # fmt: skip
CANCEL_REPORTED = Row(
    "cancel-reported", "polite cancel: asked → Cancelled", "s", 2, noise=0.05, targets={COLD: 0.8, WARM: 0.8},
    in_plot=True, how="The same, to the time stamp of the state Cancelled.",
)  # fmt: skip
STUBBORN = Row(
    "stubborn", "stubborn cancel: process gone beyond its grace", "s", 2, noise=0.05,
    targets={COLD: 0.1, WARM: 0.1},
    how="The flow ignores SIGTERM; the grace is 2 s of runnerd (`stop_timeout`), 30 s of Prefect's own, where it is "
        "fixed; the runs are cancelled half a second apart.",
)  # fmt: skip
IDLE_PSS = Row(
    "idle-pss", "idle memory, PSS", "MiB", 1, noise=1.0, targets={COLD: 38.0}, in_plot=True,
    how="All processes of the contender some seconds after its start, before its first run (warm: after it, warm "
        "interpreters included).",
)  # fmt: skip
IDLE_CPU = Row(
    "idle-cpu", "idle processor time", "%", 3, statistic="mean", noise=0.02, targets={COLD: 0.03},
    how="Nanoseconds that the kernel counted for all threads, while all contenders idle at once.",
)  # fmt: skip
LATE = Row(
    "late", "lateness of scheduled starts, median", "ms", 0, noise=10.0, targets={COLD: 50.0, WARM: 50.0},
    in_plot=True,
    how="From the scheduled time to the first statement of the flow; runs are seconds apart. Less than zero is before "
        "the time: Prefect's engine may be half a second early, because the server rounds the wait that it asks for.",
)  # fmt: skip
LATE_P99 = Row(
    "late-p99", "lateness of scheduled starts, 99th percentile", "ms", 0, statistic="p99", noise=1e9,
    targets={COLD: 250.0, WARM: 250.0}, source="late", how="The latest of all where there are fewer than 100 starts.",
)  # fmt: skip
REQUESTS = Row(
    "requests", "requests a minute, idle, one deployment", "", 1, statistic="mean", noise=2.0, targets={COLD: 4.0},
    in_plot=True, how="Counted by a proxy in front of the server; a WebSocket counts once, when it is opened.",
)  # fmt: skip
REQUESTS_POOL = Row(
    "requests-pool", "requests a minute, idle, serving a work pool", "", 1, statistic="mean", noise=2.0,
    targets={COLD: 8.0}, in_plot=True, how="The same; runnerd serves a process pool as the Prefect worker does.",
)  # fmt: skip
REQUESTS_BUSY = Row(
    "requests-busy", "requests a minute, one deployment and a sleeping run", "", 1, statistic="mean", noise=2.0,
    targets={COLD: 6.0}, how="Those of runnerd itself; the run's own are not counted.",
)  # fmt: skip

_BUSY = (
    "all processors are busy with Prefect's own work: with the server's part, a run of 3.9 costs 0.5 processor seconds"
    " warm and 1.5 cold"
)
_REGISTERING = (
    "a registration costs the server, which is one process, 26 to 49 ms of processor time, and it answers several at"
    " once with 503"
)
# What stands in the way of a target, by row: written by whoever looked into it, shown where the target is missed.
OBSTACLES: dict[str, str] = {
    "memory-8": (
        "a fork has about 30 MiB of its own: Python 3.11 counts references in the objects that were imported, by which"
        " their pages are copied, and Prefect's engine and clients make more for each run"
    ),
    "idle-pss": (
        "the daemon has imported 34 MiB (httpx, jsonschema, structlog, PyYAML, psutil), and the spawner is an"
        " interpreter of its own (6 MiB)"
    ),
    "idle-cpu": (
        "a poll and its answer are 5 to 10 ms of Python, four times a minute, and every 15 s the files of each flow are"
        " looked at for changes"
    ),
    **{f"burst-{count}-8": _BUSY for count in (10, 16, 40)},
    **{f"growth-ready-{size}": _REGISTERING for size in (100, 1000)},
}


def burst_row(count: int, limit: int) -> Row:
    targets = {who: round(each * count, 1) for who, each in SECONDS_PER_RUN.items()} if limit == 8 else {}
    how = "Runs are created one after another, to be started at once, with 1 s polling; to the end of the last one."
    title = f"{count} no-op runs at once, limit {limit}: all done"
    return Row(burst_key(count, limit), title, "s", 1, noise=0.5, targets=targets, how=how, in_plot=True)


def memory_row(runs: int) -> Row:
    how = "PSS of all processes while that many flows sleep, the contender's own included."
    title = f"{runs} concurrent runs, PSS of the whole tree"
    targets = MEMORY_TARGETS.get(runs, {})
    return Row(memory_key(runs), title, "MiB", 0, noise=5.0, targets=targets, how=how, in_plot=True)


def growth_rows(deployments: int) -> list[Row]:
    of = f"{deployments:,} deployment{'s' if deployments > 1 else ''}"
    register = {COLD: max(1.0, round(REGISTER_SECONDS_PER_DEPLOYMENT * deployments, 1))} if deployments > 1 else {}
    return [
        Row(growth_key("pss", deployments), f"{of}: idle memory, PSS", "MiB", 1, noise=1.0),
        Row(growth_key("cpu", deployments), f"{of}: processor time", "%", 3, statistic="mean", noise=0.05),
        Row(growth_key("requests", deployments), f"{of}: requests a minute", "", 1, statistic="mean", noise=2.0),
        Row(growth_key("ready", deployments), f"{of}: start until all are registered", "s", 1, targets=register),
    ]
