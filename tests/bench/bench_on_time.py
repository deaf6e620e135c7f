"""Real Prefect servers of both majors: how late the first line of scheduled flows is.

The servers are those in .envs, on SQLite, one after the other. Each run is cold, due at another fraction of a second,
and alone on its host: the next one is due when it has ended. RUNS=100 makes as many runs of each major.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.kits.bench import Budget, busy
from tests.kits.daemon import Host, eventually, serving
from tests.kits.prefect_servers import PrefectServer, running_server

RUNS = int(os.environ.get("RUNS", "20"))
MAJORS = (3, 2)
MEDIAN_MS, P99_MS = 50.0, 250.0
AHEAD_S = 20.0  # more than a start takes, also on a machine that does more than this
GAP_S = 3.0  # between a lead, and so a claim, and the end of the run before
FLOW = """
import time
from prefect import flow

@flow
def stamp(mark: str):
    now = time.time()
    with open(mark, "a") as file:
        file.write(f"{now:.6f}\\n")
"""


@dataclass(frozen=True)
class Begun:
    """How late the first line of a run was, in milliseconds, and whether its process was ready before."""

    late_ms: float
    ready: bool


def run_due(host: Host, deployment_id: str, due: float, **parameters: str) -> dict[str, Any]:
    """Have a run begin at this time, and end; its document."""
    state = {"scheduled_time": datetime.fromtimestamp(due, UTC).isoformat()}
    body = {"parameters": parameters, "state": {"type": "SCHEDULED", "state_details": state}}
    run_id = host.api.call("POST", f"/deployments/{deployment_id}/create_flow_run", body)["id"]
    time.sleep(max(0.0, due - time.time()))
    eventually(lambda: host.api.state(run_id) == "COMPLETED", f"{run_id} to complete", log=host.said)
    eventually(lambda: host.document(run_id)["phase"] == "done", f"{run_id} to end", log=host.said)
    document: dict[str, Any] = host.document(run_id)
    return document


def run_at(host: Host, deployment_id: str, mark: Path, due: float) -> Begun:
    """Have a flow begin at this time, and end."""
    document = run_due(host, deployment_id, due, mark=str(mark))
    claimed = datetime.fromisoformat(document["created_at"]).timestamp()
    late_ms = (float(mark.read_text().splitlines()[-1]) - due) * 1000
    return Begun(late_ms, claimed + (document["ready_seconds"] or math.inf) < due)


def begin_runs(server: PrefectServer) -> list[Begun]:
    host = Host(url=server.url, python=server.python)
    (host.config / "stamp.py").write_text(FLOW)
    declared = "deployments:\n  - {name: bench, entrypoint: 'stamp.py:stamp', parameters: {mark: ''}}\n"
    host.drop_in("05-prefetch.yaml", f"api: {{prefetch: {AHEAD_S:g}s}}\n")
    with serving(host, declared, "bench"):
        deployment_id = host.api.deployment("stamp", "bench")["id"]
        found = []
        for number in range(RUNS):
            fraction = number * 0.618 % 1.0
            due = math.floor(time.time() + (AHEAD_S if number == 0 else GAP_S + AHEAD_S / 2)) + fraction
            found.append(run_at(host, deployment_id, host.root / "mark", due))
        return found


def main() -> int:
    budget = Budget()
    for major in MAJORS:
        with tempfile.TemporaryDirectory(prefix="runnerd-bench-") as home, running_server(major, Path(home)) as server:
            begun = begin_runs(server)
        late, of_ready = (sorted(one.late_ms for one in begun if one.ready or every) for every in (True, False))
        note = f"{len(late)} runs of Prefect {server.version}, {late[0]:.1f} to {late[-1]:.1f} ms; {busy()}"
        budget.measure("lateness of a scheduled flow, median", statistics.median(late), "ms", MEDIAN_MS, note)
        p99 = late[min(len(late) - 1, math.ceil(0.99 * len(late)) - 1)]
        budget.measure("lateness of a scheduled flow, p99", p99, "ms", P99_MS, note)
        budget.measure("runs whose process was not ready in time", len(late) - len(of_ready), "runs", note=note)
        if of_ready:
            budget.measure("lateness of the others, median", statistics.median(of_ready), "ms", note=busy())
            budget.measure("lateness of the others, most", of_ready[-1], "ms", note=busy())
        budget.measure("runs that began early", sum(ms < 0 for ms in late), "runs", 0, note)
    return budget.exit_status


if __name__ == "__main__":
    sys.exit(main())
