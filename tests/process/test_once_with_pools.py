"""`runnerd --once` as `prefect worker start --run-once` and `prefect agent start --run-once`: the options of both.

The daemon, the spawner and the runs are real; the API is a fake one on a loopback port.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runnerd.pools.job.process_job import process_template
from tests.kits.daemon import Host, eventually, host_at
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json

HOLD = (sys.executable, "-I", "-S", str(Path(__file__).with_name("flow_child.py")), "hold")


class OneLook:
    """A host of this name that serves one pool of a fake Prefect, with --once; its runs wait for `go`."""

    def __init__(self, host: Host, prefect: FakePrefect, *, name: str, pool: str, more: str = "") -> None:
        self.host, self.prefect, self.name = host, prefect, name
        host.write_main(f"name: {name}\napi: {{url: '{host.api.url}'}}\nrun: {{python: '{sys.executable}'}}\n{more}")
        host.drop_in("30-pool.yaml", f"pools:\n  - {pool}\n")

    def due(self, deployment_id: str, *, ago_s: float) -> str:
        return self.prefect.pools.add_run(deployment_id, due=datetime.now(UTC) - timedelta(seconds=ago_s))

    def state(self, run_id: str) -> str:
        return str(self.prefect.state_of(run_id))

    def until_running(self, run_id: str) -> None:
        self.host.start("--once")
        eventually(lambda: self.state(run_id) == "RUNNING", f"the run to begin:\n{self.host.said()}")

    def let_go(self) -> None:
        """The runs complete, and with the last of them the daemon ends."""
        (self.host.root / "go").touch()
        assert self.host.wait() == 0, self.host.said()

    def worker(self, pool: str) -> dict[str, str]:
        return {worker.name: worker.status for worker in self.prefect.pools.workers(pool)}


@pytest.fixture(params=[2, 3])
def prefect(request: pytest.FixtureRequest) -> FakePrefect:
    return FakePrefect(major=request.param)


@pytest.fixture
def host(prefect: FakePrefect) -> Iterator[Host]:
    with host_at(prefect) as host:
        yield host


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_worker_that_runs_once(prefect: FakePrefect, host: Host) -> None:
    port = free_port()
    pool = "{name: etl, queues: [high], limit: 1}"
    look = OneLook(host, prefect, name="worker-7", pool=pool, more=f"http: {{listen: '127.0.0.1:{port}'}}\n")
    prefect.pools.create_pool("etl", base_job_template=process_template(prefect.major))
    prefect.pools.create_queue("etl", "high")
    job: Json = {"command": " ".join(HOLD), "working_dir": str(host.root)}
    high = prefect.pools.add_deployment("etl", queue="high", job_variables=job)
    other = prefect.pools.add_deployment("etl", job_variables=job)
    first, second = look.due(high, ago_s=5), look.due(high, ago_s=1)
    elsewhere = look.due(other, ago_s=9)

    look.until_running(first)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/health", timeout=60) as answer:
        assert json.load(answer)["ok"] is True
    assert look.worker("etl") == {"worker-7": "ONLINE"}
    look.let_go()

    assert [look.state(run_id) for run_id in (first, second, elsewhere)] == ["COMPLETED", "SCHEDULED", "SCHEDULED"]
    eventually(lambda: look.worker("etl") == {"worker-7": "OFFLINE"}, "the worker to be OFFLINE")


def test_a_worker_that_runs_once_and_finds_nothing(prefect: FakePrefect, host: Host) -> None:
    look = OneLook(host, prefect, name="worker-7", pool="{name: etl, queues: [high]}")
    host.process = subprocess.Popen([*host.argv, "--once"], stdin=subprocess.DEVNULL, env=host.environ)
    assert host.wait() == 0, host.said()
    assert sorted(queue.name for queue in prefect.pools.queues("etl")) == ["default", "high"], "both were made"
    assert look.worker("etl").keys() == {"worker-7"}


@pytest.mark.parametrize("prefect", [2], indirect=True)
def test_an_agent_that_runs_once(prefect: FakePrefect, host: Host) -> None:
    pool = "{name: default-agent-pool, type: prefect-agent, match: dev-, limit: 1}"
    look = OneLook(host, prefect, name="agent-7", pool=pool)
    prefect.pools.create_pool("default-agent-pool", type="prefect-agent")
    for queue in ("dev-a", "prod"):
        prefect.pools.create_queue("default-agent-pool", queue)
    block = prefect.pools.add_block("process", None, {"command": list(HOLD), "working_dir": str(host.root)})
    ours, other = (
        prefect.pools.add_deployment("default-agent-pool", queue=queue, infrastructure_document_id=block)
        for queue in ("dev-a", "prod")
    )
    first, second, elsewhere = look.due(ours, ago_s=5), look.due(ours, ago_s=1), look.due(other, ago_s=9)

    look.until_running(first)
    look.let_go()

    assert [look.state(run_id) for run_id in (first, second, elsewhere)] == ["COMPLETED", "SCHEDULED", "SCHEDULED"]
    assert look.worker("default-agent-pool") == {}, "agents are no workers"
