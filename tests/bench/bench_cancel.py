"""What a cancel in Prefect takes, on a real server: asked -> stop signal -> process gone -> Cancelled.

`python -m tests.bench.bench_cancel [MAJOR [REPEATS]]`. Medians and the longest. The request is what
`prefect flow-run cancel` sends; that program's own start is not counted. `beyond the grace` is from the stop signal
until the process is gone, less stop_timeout, for a flow that ignores the signal.

The budgets are for what runnerd decides: until the signal, and from the end of the process. In between is Prefect's
engine. At the end of a flow that is not async, 3.9 waits for its heartbeat thread, which sleeps for up to a second, and
which no setting turns off.
"""

from __future__ import annotations

import os
import select
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tests.kits.bench import Budget, busy
from tests.kits.daemon import Host, eventually
from tests.kits.prefect_servers import ENVS, running_server

GRACE_S = 2.0
REPEATS = 10
SIGNALLED_S, BEYOND_S, CANCELLED_S = 0.3, 0.1, 0.3
GONE_TARGET_S = 0.5  # from the request until a polite process is gone
FLOWS = """
import asyncio, signal, time
from pathlib import Path
from prefect import flow


def on_term(mark, then):
    def note(number, frame):
        Path(mark).write_text(repr(time.time()))
        if then is not None:
            then(number, frame)
    signal.signal(signal.SIGTERM, note)


@flow
def polite(mark: str):
    on_term(mark, signal.getsignal(signal.SIGTERM))
    time.sleep(600)


@flow
async def polite_async(mark: str):
    on_term(mark, signal.getsignal(signal.SIGTERM))
    await asyncio.sleep(600)


@flow
def stubborn(mark: str):
    on_term(mark, None)
    end = time.monotonic() + 600
    while time.monotonic() < end:
        time.sleep(0.1)
"""
DROP_IN = f"""
deployments:
  - {{name: polite, entrypoint: "cancelled.py:polite"}}
  - {{name: polite-async, entrypoint: "cancelled.py:polite_async"}}
  - {{name: stubborn, entrypoint: "cancelled.py:stubborn", run: {{stop_timeout: {GRACE_S:g}s}}}}
"""


class Cancel:
    """The times of one cancel, in seconds since it was asked for."""

    def __init__(self, host: Host, flow: str, mark: Path) -> None:
        run_id = host.run_now(flow, mark=str(mark))
        pid = host.running(run_id)["pid"]
        time.sleep(1.0)  # the flow has set its handler, and the engine has connected
        pidfd = os.pidfd_open(pid)
        asked = time.time()
        host.api.cancel(run_id)
        self.answered = time.time() - asked
        if not select.select([pidfd], [], [], 60.0)[0]:
            raise SystemExit(f"the process of {flow} did not end:\n{host.said()}")
        self.gone = time.time() - asked
        os.close(pidfd)
        self.signalled = float(mark.read_text()) - asked
        eventually(lambda: host.api.state(run_id) == "CANCELLED", "Cancelled", log=host.said)
        stamp = host.api.run(run_id)["state"]["timestamp"]
        self.cancelled = datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() - asked


@contextmanager
def serving(major: int) -> Iterator[Host]:
    with tempfile.TemporaryDirectory(prefix="runnerd-bench-") as home, running_server(major, Path(home)) as server:
        host = Host(url=server.url, python=server.python)
        main = (host.config / "runnerd.yaml").read_text()
        host.write_main(main.replace(", poll_interval: 1s", ""))  # as hosts are by default
        (host.config / "cancelled.py").write_text(FLOWS)
        host.drop_in("10-bench.yaml", DROP_IN)
        try:
            host.start()
            host.registered("polite", "polite-async", "stubborn")
            if major >= 3:
                eventually(lambda: host.json("status")["api"]["stream"]["state"] == "live", "events", log=host.said)
            yield host
        finally:
            host.close()


def measure(budget: Budget, what: str, found: list[float], at_most: float | None = None, *, note: str = "") -> None:
    about = f"longest {max(found):.2f}, {len(found)} times; {note}{busy()}"
    budget.measure(what, statistics.median(found), "s", at_most, about)


def measure_flow(budget: Budget, flow: str, cancels: list[Cancel], *, streamed: bool) -> None:
    # Without events the interval of the polls for cancels decides.
    signalled_s = SIGNALLED_S if streamed else None
    measure(budget, f"{flow}: asked -> answered", [one.answered for one in cancels])
    measure(budget, f"{flow}: asked -> stop signal", [one.signalled for one in cancels], signalled_s)
    measure(budget, f"{flow}: stop signal -> process gone", [one.gone - one.signalled for one in cancels])
    target = f"target {GONE_TARGET_S:g}; " if flow != "stubborn" else ""
    measure(budget, f"{flow}: asked -> process gone", [one.gone for one in cancels], note=target)
    measure(budget, f"{flow}: process gone -> Cancelled", [one.cancelled - one.gone for one in cancels], CANCELLED_S)


def main() -> int:
    words = [int(word) for word in sys.argv[1:3]]
    major, repeats = (*words, *(3, REPEATS)[len(words) :])
    if not (ENVS / f"prefect{major}" / "stamp").exists():
        raise SystemExit(f"cannot measure: there is no .envs/prefect{major}; say tests/envs/make.sh prefect{major}")
    budget = Budget()
    with serving(major) as host:
        mark = host.root / "mark"
        for flow in ("polite", "polite-async", "stubborn"):
            cancels = [Cancel(host, flow, mark) for _ in range(repeats)]
            measure_flow(budget, flow, cancels, streamed=major >= 3)
    beyond = [one.gone - one.signalled - GRACE_S for one in cancels]
    measure(budget, "stubborn: beyond the grace", beyond, BEYOND_S)
    return budget.exit_status


if __name__ == "__main__":
    sys.exit(main())
