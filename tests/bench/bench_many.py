"""A real Prefect 3 server: 1,000 new deployments are registered, then 200 runs are kept under way on their host.

The server is the one in .envs/prefect3, on SQLite. A run is a process of the stand-in for Prefect: it reports Running,
sleeps, and reports Completed to the server, as a flow does that only sleeps.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kits.bench import Budget, Daemon, Scratch, busy, scratch_at
from tests.kits.measuring import Control, LagWatch, end_runs, memory_mib
from tests.kits.prefect_servers import running_server

DEPLOYMENTS = 1000
RUNS = 200
MORE_RUNS = 40  # that wait for the host's limit
RUN_S = 120.0
WATCHED_S = 30.0
REGISTERED_WITHIN_S, STARTED_WITHIN_S = 150.0, 80.0  # then the script goes on: all of it takes less than five minutes
LAG_S = 0.1  # for 99 of 100 answers
ENGINE = """\
import json, os, time, urllib.request

def propose(kind):
    url = f"{os.environ['PREFECT_API_URL']}/flow_runs/{os.environ['PREFECT__FLOW_RUN_ID']}/set_state"
    body = json.dumps({"state": {"type": kind}}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=120).read()

propose("RUNNING")
time.sleep(SECONDS)
propose("COMPLETED")
"""


def configure(host: Scratch) -> None:
    host.configure(DEPLOYMENTS)
    settings = host.root / "runnerd.yaml"
    settings.write_text(settings.read_text() + f"limits: {{runs: {RUNS}, start_rate: 20/s}}\n")
    (host.root / "work" / "prefect" / "engine.py").write_text(ENGINE.replace("SECONDS", str(RUN_S)))


def reaches(count: Callable[[], int], wanted: int, within_s: float) -> tuple[int, float]:
    """Wait until there are so many, but not longer; return how many there are and the seconds that it took."""
    before = time.perf_counter()
    while True:
        found, took_s = count(), time.perf_counter() - before
        if found >= wanted or took_s > within_s:
            return found, took_s
        time.sleep(0.5)


def register(budget: Budget, host: Scratch, daemon: Daemon, control: Control) -> None:
    def ready() -> int:
        return [one["state"] for one in control.call("GET", "/v1/status")["deployments"]].count("ready")

    with lag_measured(budget, host, "while registering"):
        found, took_s = reaches(ready, DEPLOYMENTS, REGISTERED_WITHIN_S)
    used = f"{daemon.processor_s():.1f} s of the daemon's processor time; {busy()}"
    budget.measure(f"registering {found} of {DEPLOYMENTS} new deployments", took_s, "s", note=used)


def start_runs(budget: Budget, control: Control) -> None:
    before = time.perf_counter()
    asked, asked_s = 0, 0.0
    while asked < RUNS + MORE_RUNS and asked_s < STARTED_WITHIN_S:
        control.call("POST", f"/v1/deployments/job-{asked:05d}/run", {})
        asked, asked_s = asked + 1, time.perf_counter() - before
    found, took_s = reaches(lambda: len(under_way(control)), RUNS, STARTED_WITHIN_S - asked_s)
    note = f"{asked_s:.1f} s of it for {asked} requests to run; {busy()}"
    budget.measure(f"until {found} of {RUNS} runs are under way", asked_s + took_s, "s", note=note)


@contextmanager
def lag_measured(budget: Budget, host: Scratch, when: str) -> Iterator[None]:
    watch = LagWatch(host.root / "run" / "control.sock")
    watch.start()
    try:
        yield
    finally:
        taken = watch.stop()
    p99 = taken[int(0.99 * (len(taken) - 1))]
    note = f"of {len(taken)} answers; the longest {taken[-1]:.3f} s; {busy()}"
    budget.measure(f"lag of the event loop {when}, 99th percentile", p99, "s", LAG_S, note)


def under_way(control: Control) -> list[Any]:
    return [run for run in control.call("GET", "/v1/status")["runs"] if run["pid"]]


def watch_runs(budget: Budget, host: Scratch, daemon: Daemon, control: Control) -> None:
    used_s, counts = daemon.processor_s(), []
    with lag_measured(budget, host, "with all these runs"):
        until = time.monotonic() + WATCHED_S
        while time.monotonic() < until:
            time.sleep(5)
            counts.append(len(under_way(control)))
    share = 100 * (daemon.processor_s() - used_s) / WATCHED_S
    note = f"the watching included; {min(counts)} to {max(counts)} runs; {busy()}"
    budget.measure("processor time of the daemon meanwhile", share, "%", note=note)
    pss, rss = (memory_mib(daemon.process, what) for what in ("Pss", "Rss"))
    note = f"RSS {rss:.1f}; the spawner's PSS {memory_mib(daemon.spawner, 'Pss'):.1f}"
    budget.measure("memory of the daemon then, PSS", pss, "MiB", note=note)


def main() -> int:
    budget = Budget()
    with tempfile.TemporaryDirectory(prefix="runnerd-bench-prefect-") as home, running_server(3, Path(home)) as server:
        with scratch_at(server.url) as host:
            configure(host)
            control = Control(host.root / "run" / "control.sock")
            with host.daemon() as daemon:
                register(budget, host, daemon, control)
                try:
                    start_runs(budget, control)
                    watch_runs(budget, host, daemon, control)
                finally:
                    end_runs(host, control, [run["pid"] for run in under_way(control)])
    return budget.exit_status


if __name__ == "__main__":
    sys.exit(main())
