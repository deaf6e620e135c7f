"""Events of a real server wake the host, so that nothing waits for a poll; and the worker channel of such a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kits.daemon import TERM, Host, alive, eventually, serving
from tests.kits.fault_proxy import FaultProxy, answer
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import PoolHost, new_pool, pools_of

SLOW = "poll_interval: 10m"
DEPLOYMENTS = """
deployments:
  - {name: sleep, entrypoint: "flows.py:sleep"}
"""


@pytest.fixture(scope="module")
def host(prefect3: PrefectServer) -> Iterator[Host]:
    host = Host(url=prefect3.url, python=prefect3.python)
    host.write_main((host.config / "runnerd.yaml").read_text().replace("poll_interval: 1s", SLOW))
    with serving(host, DEPLOYMENTS, "sleep") as host:
        yield host


def test_a_run_starts_and_is_cancelled_without_a_poll(host: Host) -> None:
    eventually(lambda: host.json("status")["api"]["stream"]["state"] == "live", "the stream", log=host.said)
    deployment = host.api.deployment("sleep", "sleep")
    run_id = host.api.call("POST", f"/deployments/{deployment['id']}/create_flow_run", {})["id"]
    pid = host.running(run_id)["pid"]
    host.api.cancel(run_id)
    assert host.ended(run_id)["api_state"] == "CANCELLED"
    assert not alive(pid)


def test_a_pool_hears_of_the_host_over_its_worker_channel(prefect3: PrefectServer) -> None:
    host, pool = PoolHost(prefect3), new_pool()
    with pools_of(host, f"pools: [{{name: {pool}}}]", pool):
        host.serves(pool)
        eventually(lambda: host.pool(pool)["heartbeats"] == "channel", "the channel", log=host.said)
        assert host.worker(pool) == "ONLINE"
        host.api.call("PATCH", f"/work_pools/{pool}", {"concurrency_limit": 3})
        eventually(lambda: host.pool(pool)["concurrency_limit"] == 3, "the new limit", log=host.said)
        host.api.call("PATCH", f"/work_pools/{pool}", {"is_paused": True})
        eventually(lambda: host.pool(pool)["state"] == "paused", "the pause", log=host.said)
        assert host.ctl("drain").returncode == 0
        eventually(lambda: host.worker(pool) == "OFFLINE", "the drain", log=host.said)
        assert host.pool(pool)["heartbeats"] is None
        assert host.ctl("undrain").returncode == 0
        eventually(lambda: host.pool(pool)["heartbeats"] == "channel", "the channel again", log=host.said)
        eventually(lambda: host.worker(pool) == "ONLINE", "the end of the drain", log=host.said)
        host.signal(TERM)
        assert host.wait() == 0
        eventually(lambda: host.worker(pool) == "OFFLINE", "the server to see that the host has stopped")


def test_a_proxy_without_websockets_costs_nothing_but_time(prefect3: PrefectServer) -> None:
    pool = new_pool()
    with FaultProxy(upstream=prefect3.url) as proxy:
        proxy.add(answer(404), path="/events/out$|/workers/connect$")
        host = PoolHost(prefect3, url=proxy.url)
        with pools_of(host, f"pools: [{{name: {pool}}}]", pool):
            host.serves(pool)
            eventually(lambda: host.json("status")["api"]["stream"]["state"] == "off", "the refusal", log=host.said)
            assert host.pool(pool)["heartbeats"] == "requests" and host.worker(pool) == "ONLINE"
            command = {"command": host.tiny()}
            run_id = host.create_run(host.deploy(pool, "tiny", job_variables=command))
            host.ends(run_id, "COMPLETED")
