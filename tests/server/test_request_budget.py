"""The stated request budget: what hosts at their default settings ask of a real server while nothing happens."""

from __future__ import annotations

import pytest

from tests.kits.counted import counted_host, idle
from tests.kits.daemon import eventually
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import new_pool

MINUTES = 3
DEPLOYMENTS = 'deployments: [{{name: {0}, entrypoint: "flows.py:sleep"}}]\n'
POLL = "get_scheduled_flow_runs"
# At the default intervals, as docs/operations.md states it: for a served pool, for conf.d, more while anything runs.
WITH_EVENTS, WITHOUT = (4.0, 4.0, 2.0), (13.0, 8.5, 12.5)


@pytest.mark.time_limit(900)
def test_the_budget_of_an_idle_host(prefect: PrefectServer) -> None:
    """Three hosts at the same time, for whole minutes by the real clock, because jitter is a part of it."""
    stream = prefect.major >= 3
    pool, idle_one, busy_one = new_pool(), new_pool(), new_pool()
    with (
        counted_host(prefect, f"pools: [{{name: {pool}}}]\n", pool, stream=stream) as of_pool,
        counted_host(prefect, DEPLOYMENTS.format(idle_one), stream=stream) as of_conf_d,
        counted_host(prefect, DEPLOYMENTS.format(busy_one), stream=stream) as of_run,
    ):
        of_conf_d.host.registered(idle_one)
        of_run.host.registered(busy_one)
        of_run.host.running(of_run.host.run_now(busy_one))
        if stream:
            eventually(lambda: of_pool.host.pool(pool)["heartbeats"] == "channel", "the worker channel")
            stream_of = of_run.host.json("status")["api"]["stream"]
        found = idle([of_pool, of_conf_d, of_run], 60.0 * MINUTES)
        said = f"Prefect {prefect.version}, in {MINUTES} minutes: {[dict(asked.most_common()) for asked in found]}"
        print(said)
        pools, conf_d, running = (sum(asked.values()) / MINUTES for asked in found)
        at_most = WITH_EVENTS if stream else WITHOUT
        assert (pools <= at_most[0], conf_d <= at_most[1], running <= at_most[1] + at_most[2]) == (True,) * 3, said
        polled = [sum(count for what, count in asked.items() if POLL in what) for asked in found]
        assert min(polled) >= MINUTES, "polls go on beneath the events"
        assert of_pool.host.worker(pool) == "ONLINE"
        # The same figure in status: of its last minute, so not less than nothing and about as much as was counted.
        shown = of_conf_d.host.json("status")["api"]["requests_per_minute"]
        assert 0 < shown <= 2 * at_most[1]
        if stream:
            assert of_run.host.json("status")["api"]["stream"]["since"] == stream_of["since"], (
                "it was live all the time"
            )
