"""The status of 200 runs on a host with 5,000 processes: how long it takes, and how long the event loop lags."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import psutil

from tests.kits.bench import Budget, Scratch, busy, scratch
from tests.kits.measuring import Control, LagWatch, end_runs

RUNS = 200
PROCESSES_PER_RUN = 25  # the leader and its children
TIMES = 20
STATUS_S = 0.3
LAG_S = 0.1
CHILDREN = f"i=1; while [ $i -lt {PROCESSES_PER_RUN} ]; do sleep 3000 & i=$((i + 1)); done; wait"
ENGINE = f"import os\nos.execv('/bin/sh', ['sh', '-c', {CHILDREN!r}])\n"


def configure(host: Scratch) -> None:
    host.configure(1)
    settings = host.root / "runnerd.yaml"
    settings.write_text(settings.read_text() + f"limits: {{runs: {RUNS}, start_rate: 20/s}}\n")
    drop_in = host.root / "conf.d" / "00000.yaml"
    drop_in.write_text(drop_in.read_text().replace("    concurrency_limit: 1\n", ""))
    (host.root / "work" / "prefect" / "engine.py").write_text(ENGINE)


def start_runs(host: Scratch, control: Control) -> None:
    for _ in range(RUNS):
        control.call("POST", "/v1/deployments/job-00000/run", {})
    started = RUNS * PROCESSES_PER_RUN * 0.98
    host.wait("all processes run", lambda: len(psutil.pids()) >= started, every_s=2, patience_s=600)


def measure(budget: Budget, control: Control, path: Path) -> None:
    watch = LagWatch(path)
    watch.start()
    taken = []
    for _ in range(TIMES):
        taken.append(control.time("/v1/status"))
        time.sleep(1.1)  # each of them measures: nothing that another request measured is young enough
    lag_s = max(watch.stop())
    about = f"{RUNS} runs, {len(psutil.pids())} processes"
    note = f"from {min(taken):.3f} to {max(taken):.3f}; {busy()}"
    budget.measure(f"status of {about}", statistics.median(taken), "s", STATUS_S, note)
    budget.measure("the longest lag of the event loop meanwhile", lag_s, "s", LAG_S, busy())


def main() -> int:
    budget = Budget()
    with scratch() as host:
        configure(host)
        path = host.root / "run" / "control.sock"
        control = Control(path)
        with host.daemon():
            host.wait("the deployment is registered", lambda: host.ready() == 1)
            leaders: list[int] = []
            try:
                start_runs(host, control)
                leaders = [run["pid"] for run in control.call("GET", "/v1/status")["runs"] if run["pid"]]
                measure(budget, control, path)
            finally:
                end_runs(host, control, leaders)
    return budget.exit_status


if __name__ == "__main__":
    sys.exit(main())
