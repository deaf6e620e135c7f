"""What people do with a work pool past runnerd: make it, deploy to it, put runs into it; and a host that serves it."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon_kit import Host, eventually
from prefect_servers import PrefectServer

Json = Any
HERE = Path(__file__).parent
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


class PoolHost(Host):
    """A host of its own name. `marks` is what flows and tiny engines write to, `gate` what these wait for."""

    def __init__(self, server: PrefectServer, *, url: str = "", name: str = "", more: str = "") -> None:
        super().__init__(url=url or server.url, python=server.python, environ={"OF_THE_DAEMON": "yes"})
        self.major = server.major
        self.name = name or f"host-{uuid.uuid4().hex[:8]}"
        self.marks, self.gate = self.root / "marks", self.root / "gate"
        self.marks.touch()
        for name in ("hook_flows.py", "tiny_engine.py"):
            shutil.copy(HERE / name, self.config)
        its = {"PREFECT_HOME": f"{self.root}/prefect-home", "MARKS": str(self.marks), "OF_THE_YAML": "yes"}
        run = {"python": server.python, "environment": its}
        self.write_main(
            f"name: {self.name}\napi: {{url: '{url or server.url}', poll_interval: 1s}}\nrun: {json.dumps(run)}\n{more}"
        )

    # --- the pool's side --------------------------------------------------------------------------------------------

    def deploy(self, pool: str, name: str, **more: Json) -> str:
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
        return str(self.api.call("POST", "/deployments/", {**body, **more})["id"])

    def tiny(self, *, gated: bool = False) -> str:
        """The command that stands for the engine; it needs no Prefect."""
        gate = [str(self.gate)] if gated else []
        return shlex.join([sys.executable, "-S", str(self.config / "tiny_engine.py"), str(self.marks), *gate])

    def create_run(self, deployment_id: str, **more: Json) -> str:
        return str(self.api.call("POST", f"/deployments/{deployment_id}/create_flow_run", more)["id"])

    def queue(self, pool: str, name: str, **more: Json) -> None:
        self.api.call("POST", f"/work_pools/{pool}/queues", {"name": name, **more})

    # --- what is seen ---------------------------------------------------------------------------------------------

    def pool(self, name: str) -> Json:
        """The pool in this host's status."""
        return next(one for one in self.json("status")["pools"] if one["name"] == name)

    def serves(self, *names: str) -> None:
        """Wait until these pools are served."""
        for name in names:
            eventually(lambda name=name: self.pool(name)["state"] == "ready", f"{name} to be served:\n{self.said()}")  # type: ignore[misc]

    def worker(self, pool: str) -> str | None:
        """This host's status among the pool's workers."""
        found = self.api.call("POST", f"/work_pools/{pool}/workers/filter", {}) or []
        return next((one["status"] for one in found if one["name"] == self.name), None)

    def polls(self, pool: str, queue: str = "default") -> None:
        """Wait until the queue was asked for its runs twice more: once wholly from now on."""
        path = f"/work_pools/{pool}/queues/{queue}"
        for _ in range(2):
            before = self.api.call("GET", path)["last_polled"]
            eventually(lambda before=before: self.api.call("GET", path)["last_polled"] != before, "a poll")  # type: ignore[misc]

    def ends(self, run_id: str, state: str) -> Json:
        """The run as the API has it, once it is over and in this state."""

        def look() -> Json:
            run = self.api.run(run_id)
            return run if run["state"]["type"] in ENDED else None

        run = eventually(look, f"{run_id} to end; the log:\n{self.said()}")
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
    """The host with these pools in a drop-in; they are deleted, with their deployments, once it is closed."""
    host.drop_in("10-pools.yaml", pools)
    try:
        host.start()
        yield host
    finally:
        host.close()
        tidy(host, *names)


def tidy(host: PoolHost, *pools: str) -> None:
    for pool in pools:
        chosen = {"work_pools": {"name": {"any_": [pool]}}}
        for found in host.api.call("POST", "/deployments/filter", chosen):
            host.api.call("DELETE", f"/deployments/{found['id']}")
        host.api.call("DELETE", f"/work_pools/{pool}")
