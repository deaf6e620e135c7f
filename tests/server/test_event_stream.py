"""Events of a real server wake the host: what a poll would find a minute later happens at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kits.daemon import Host, alive, eventually, serving
from tests.kits.prefect_servers import PrefectServer

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
