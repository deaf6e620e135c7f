"""One work pool, two runnerd hosts and Prefect's own worker: each run is run by one of them, once, and none is left."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from tests.kits.daemon import ANSWER_S, alive, eventually
from tests.kits.fault_proxy import FaultProxy
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import STUBBORN, PoolHost, new_pool, pools_of, rival

RUNS = 30


@pytest.mark.time_limit(900.0)
def test_two_hosts_and_a_worker_of_prefect_s(prefect: PrefectServer, tmp_path: Path) -> None:
    # Prefect 3 on SQLite stands still for a minute now and then when several write at once, so they take turns.
    with FaultProxy(upstream=prefect.url, at_once=1) as proxy:
        share_a_pool(replace(prefect, url=proxy.url), tmp_path)


def share_a_pool(prefect: PrefectServer, tmp_path: Path) -> None:
    one, two = (PoolHost(prefect, more="limits: {runs: 2}\n") for _ in range(2))
    pool, log = new_pool(), tmp_path / "log"
    with (
        pools_of(one, f"pools: [{{name: {pool}, queues: [default, more, least], run: {{stop_timeout: 600s}}}}]", pool),
        pools_of(two, f"pools: [{{name: {pool}, run: {{stop_timeout: 600s}}}}]"),
    ):
        one.serves(pool)
        two.serves(pool)
        stubborn = one.create_run(one.deploy(pool, "stubborn", job_variables={"command": STUBBORN}))
        eventually(lambda: stubborn in one.marked() + two.marked(), f"it to begin:\n{one.said()}\n{two.said()}")
        with rival(prefect, pool, log):
            eventually(lambda: "started!" in log.read_text(), "the rival to be there")
            share(one, pool, tmp_path / "marks")
            leave_alone(one if stubborn in one.marked() else two, stubborn, log)


def share(host: PoolHost, pool: str, marks: Path) -> None:
    """Runs in three queues, faster than they can be taken."""
    api = host.api
    variables = {"job_variables": {"command": host.tiny(marks)}}
    there = [host.deploy(pool, queue, work_queue_name=queue, **variables) for queue in ("default", "more", "least")]
    runs = [host.create_run(there[number % 3]) for number in range(RUNS)]
    for run_id in runs:
        host.ends(run_id, "COMPLETED", ANSWER_S)
        # Both of Prefect's workers may say Pending twice of a run of theirs.
        states = [state for state, _ in groupby(api.history(run_id))]
        assert states == ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"]
    lines = [line.split() for line in marks.read_text().splitlines()]
    assert sorted(run_id for run_id, _ in lines) == sorted(runs)
    print("of whom:", Counter((api.run(run_id)["infrastructure_pid"] or "?").split(":")[0] for run_id in runs))


def leave_alone(host: PoolHost, run_id: str, log: Path) -> None:
    """A run of ours that is to be cancelled and does not end yet is not called Cancelled by others."""
    group = host.document(run_id)["pgid"]
    host.api.cancel(run_id)
    if host.major == 2:  # 3's worker looks after its own runs only
        eventually(lambda: "cannot be cancelled by this worker" in log.read_text(), f"it to look:\n{log.read_text()}")
    assert host.api.state(run_id) == "CANCELLING"
    assert alive(group)
    assert host.ctl("cancel", run_id, "--now").returncode == 0
    host.ends(run_id, "CANCELLED")
    assert not alive(group)
