"""A thousand deployments: time to load them, requests at a restart when none changed, and requests for each poll."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import Counter

from tests.kits.bench import BIN, Budget, CountedScratch, Scratch, busy, scratch

DEPLOYMENTS = 1000
LOAD_S = 3.0
REQUESTS_AT_RESTART = 20
POLLS = 10
POLL = "POST /deployments/get_scheduled_flow_runs"


def load_s(host: Scratch) -> float:
    taken = []
    for _ in range(3):
        before = time.perf_counter()
        subprocess.run(
            [str(BIN / "runnerd"), "check", "--config", str(host.root)], check=True, stdout=subprocess.DEVNULL
        )
        taken.append(time.perf_counter() - before)
    return statistics.median(taken)


def asked(host: CountedScratch) -> str:
    return ", ".join(f"{count} {what}" for what, count in Counter(host.prefect.asked).most_common(6))


def main() -> int:
    budget = Budget()
    with scratch() as host:
        host.configure(DEPLOYMENTS, poll_interval="1s")
        budget.measure(f"loading {DEPLOYMENTS} drop-ins, whole process", load_s(host), "s", LOAD_S, busy())

        before = time.perf_counter()
        with host.daemon() as daemon:
            host.wait("all are registered", lambda: host.ready() == DEPLOYMENTS, every_s=5, patience_s=900)
            used = f"{daemon.processor_s():.1f} s of the daemon's processor time; {busy()}"
            budget.measure("registering them for the first time", time.perf_counter() - before, "s", note=used)
        budget.measure("requests for that", len(host.prefect.asked), "requests")

        host.prefect.asked.clear()
        before = time.perf_counter()
        with host.daemon() as daemon:
            host.wait("all are known again", lambda: host.ready() == DEPLOYMENTS)
            host.wait("the first poll", lambda: POLL in host.prefect.asked)
            used = f"{daemon.processor_s():.1f} s of the daemon's processor time; {busy()}"
            budget.measure("restart until ready and polling", time.perf_counter() - before, "s", note=used)
            known = len(host.prefect.asked)
            budget.measure("requests at that restart", known, "requests", REQUESTS_AT_RESTART, asked(host))

            host.wait("two polls", lambda: host.prefect.asked.count(POLL) > 2)
            host.prefect.asked.clear()
            host.wait(f"{POLLS} polls", lambda: host.prefect.asked.count(POLL) >= POLLS)
            polls, note = host.prefect.asked.count(POLL), asked(host)
            others = len(host.prefect.asked) - polls
            budget.measure(f"requests beside {polls} polls", others, "requests", 5, note)
    return budget.exit_status


if __name__ == "__main__":
    sys.exit(main())
