"""Real Prefect servers of both majors: how late the first line of scheduled commands is.

As bench_on_time.py; the command is `date`, which prints its own clock. RUNS=100 makes as many runs of each major.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.bench_on_time import MAJORS, RUNS, run_due
from tests.kits.bench import Budget, busy
from tests.kits.daemon import Host, serving
from tests.kits.prefect_servers import PrefectServer, running_server

MOST_MS = 50.0
GAP_S = 4.0  # between the end of a run and the next one, which is claimed before it is due
DECLARED = "deployments:\n  - {name: bench, command: [date, '+%s.%N']}\n"


def first_lines(server: PrefectServer) -> list[float]:
    """How late each first line was, in milliseconds, in the order of lateness."""
    host = Host(url=server.url, python=server.python)
    with serving(host, DECLARED, "bench"):
        deployment_id = host.api.deployment("bench", "bench")["id"]
        late_ms = []
        for number in range(RUNS):
            due = math.floor(time.time() + GAP_S) + number * 0.618 % 1.0
            document = run_due(host, deployment_id, due)
            late_ms.append((float(host.ctl("logs", document["id"]).stdout) - due) * 1000)
        return sorted(late_ms)


def main() -> int:
    budget = Budget()
    for major in MAJORS:
        with tempfile.TemporaryDirectory(prefix="runnerd-bench-") as home, running_server(major, Path(home)) as server:
            late = first_lines(server)
        note = f"{len(late)} runs of Prefect {server.version}, {late[0]:.1f} to {late[-1]:.1f} ms; {busy()}"
        budget.measure("lateness of a scheduled command, median", statistics.median(late), "ms", MOST_MS, note)
        p99 = late[min(len(late) - 1, math.ceil(0.99 * len(late)) - 1)]
        budget.measure("lateness of a scheduled command, p99", p99, "ms", MOST_MS, note)
        budget.measure("commands that began early", sum(ms < 0 for ms in late), "runs", 0, note)
    return budget.exit_status


if __name__ == "__main__":
    sys.exit(main())
