"""What people do with a work pool past runnerd: make it, deploy to it, put runs into it; and a host that serves it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kits.checkout import ROOT
from tests.kits.daemon import GENEROUS_S, Host, eventually
from tests.kits.prefect_servers import PrefectServer

Json = Any
HERE = ROOT / "tests" / "server"
STUBBORN = "sh -c 'trap \"\" TERM; echo $PREFECT__FLOW_RUN_ID >> $MARKS; while :; do sleep 1; done'"  # a command
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


class PoolHost(Host):
    """A host of its own name. `marks` is what flows and tiny engines write to, `gate` what these wait for."""

    def __init__(self, server: PrefectServer, *, url: str = "", more: str = "") -> None:
        super().__init__(url=url or server.url, python=server.python, environ={"OF_THE_DAEMON": "yes"})
        self.major, self.python = server.major, server.python
        self.name = f"host-{uuid.uuid4().hex[:8]}"
        self.marks, self.gate = self.root / "marks", self.root / "gate"
        self.marks.touch()
        self.deployed: list[str] = []
        for name in ("hook_flows.py", "tiny_engine.py"):
            shutil.copy(HERE / name, self.config)
        its = {"PREFECT_HOME": f"{self.root}/prefect-home", "MARKS": str(self.marks), "OF_THE_YAML": "yes"}
        run = {"python": server.python, "environment": its}
        api = f"{{url: '{url or server.url}', poll_interval: 1s}}"
        self.write_main(f"name: {self.name}\napi: {api}\nrun: {json.dumps(run)}\n{more}")

    # --- the pool's side --------------------------------------------------------------------------------------------

    def deploy(self, pool: str | None, name: str, **more: Json) -> str:
        """A deployment whose code is in this host's configuration directory; its id."""
        entrypoint = more.get("entrypoint", "flows.py:greet")
        flow_id = self.api.call("POST", "/flows/", {"name": entrypoint.partition(":")[2]})["id"]
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(self.config)}}
        body = {
            "name": name,
            "flow_id": flow_id,
            "work_pool_name": pool,
            "entrypoint": entrypoint,
            "pull_steps": [step],
        }
        self.deployed.append(str(self.api.call("POST", "/deployments/", {**body, **more})["id"]))
        return self.deployed[-1]

    def tiny(self, marks: Path | None = None, *, gated: bool = False) -> str:
        """The command that stands for the engine; it needs no Prefect."""
        gate = [str(self.gate)] if gated else []
        program = str(self.config / "tiny_engine.py")
        return shlex.join([sys.executable, "-S", program, str(marks or self.marks), *gate])

    def create_run(self, deployment_id: str, **more: Json) -> str:
        return str(self.api.call("POST", f"/deployments/{deployment_id}/create_flow_run", more)["id"])

    def queue(self, pool: str, name: str, **more: Json) -> None:
        self.api.call("POST", f"/work_pools/{pool}/queues", {"name": name, **more})

    # --- what is seen ---------------------------------------------------------------------------------------------

    def pool(self, name: str) -> Json:
        """The pool in this host's status."""
        return next(one for one in self.json("status")["pools"] if one["name"] == name)

    def serves(self, pool: str) -> None:
        """Wait until it is served."""
        eventually(lambda: self.pool(pool)["state"] == "ready", f"{pool} to be served:\n{self.said()}")

    def worker(self, pool: str) -> str | None:
        """This host's status among the pool's workers."""
        found = self.api.call("POST", f"/work_pools/{pool}/workers/filter", {}) or []
        return next((one["status"] for one in found if one["name"] == self.name), None)

    def polls(self, pool: str) -> None:
        """Wait until it was asked for its runs twice more: once wholly from now on."""

        def polled() -> Json:
            return self.api.call("GET", f"/work_pools/{pool}/queues/default")["last_polled"]

        known = [polled()]
        while len(known) < 3:
            eventually(lambda: polled() != known[-1], "a poll")
            known.append(polled())

    def ends(self, run_id: str, state: str, limit_s: float = GENEROUS_S) -> Json:
        """The run as the API has it, once it is over and in this state."""

        def look() -> Json:
            run = self.api.run(run_id)
            return run if run["state"]["type"] in ENDED else None

        run = eventually(look, f"{run_id} to end", limit_s, log=self.said)
        assert run["state"]["type"] == state, (
            f"{run['state']}; the log:\n{self.said()}\n{self.ctl('logs', run_id).stdout}"
        )
        return run

    def marked(self) -> list[str]:
        """The ids in `marks`, in order."""
        return [line.split()[0] for line in self.marks.read_text().splitlines() if line.strip()]


def new_pool() -> str:
    return f"pool-{uuid.uuid4().hex[:8]}"


@contextlib.contextmanager
def pools_of(host: PoolHost, pools: str, *names: str) -> Iterator[PoolHost]:
    """The host with these pools in a drop-in; what was put on the server is gone once the host is closed."""
    host.drop_in("10-pools.yaml", pools)
    try:
        host.start()
        yield host
    finally:
        host.close()
        tidy(host, *names)


def tidy(host: PoolHost, *pools: str) -> None:
    """Runs that are left would be marked as late again and again, on a server that others need."""
    ours = {"deployments": ("id", host.deployed), "work_pools": ("name", list(pools))}
    for chosen in ({by: {key: {"any_": values}}} for by, (key, values) in ours.items() if values):
        for kind in ("flow_runs", "deployments"):
            for found in host.api.call("POST", f"/{kind}/filter", chosen):
                host.api.call("DELETE", f"/{kind}/{found['id']}")
    for pool in pools:
        host.api.call("DELETE", f"/work_pools/{pool}")


@contextlib.contextmanager
def rival(server: PrefectServer, pool: str, log: Path) -> Iterator[str]:
    """Prefect's own worker on the pool; its name. Asked to end on leaving, and its log is in `log`."""
    name = f"rival-{uuid.uuid4().hex[:8]}"
    prefect = str(Path(server.python).with_name("prefect"))
    words = [prefect, "worker", "start", "--type", "process", "--pool", pool, "--name", name, "--limit", "2"]
    environment = {**server.environment, "PREFECT_API_URL": server.url, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with open(log, "wb") as file:
        worker = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield name
    finally:
        worker.terminate()
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
