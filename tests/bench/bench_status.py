"""`runnerctl status`, the whole process: the median of 20."""

from __future__ import annotations

import resource
import statistics
import sys
import time

from tests.kits.bench import Budget, busy, scratch

TIMES = 20
MEDIAN_S = 0.15


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    budget = Budget()
    with scratch() as host:
        host.configure(20)
        with host.daemon():
            host.wait("20 deployments are registered", lambda: host.ready() == 20)
            taken, used_before = [], processor_s()
            for _ in range(TIMES):
                before = time.perf_counter()
                done = host.runnerctl("status")
                taken.append(time.perf_counter() - before)
                if done.returncode != 0:
                    raise SystemExit(f"runnerctl status failed: {done.stderr}")
            used = (processor_s() - used_before) / TIMES
            note = f"from {min(taken):.3f} to {max(taken):.3f}; {used:.3f} s of processor time; {busy()}"
            budget.measure("runnerctl status, whole process", statistics.median(taken), "s", MEDIAN_S, note)
    return budget.exit_status


if __name__ == "__main__":
    sys.exit(main())
