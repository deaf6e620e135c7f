"""A pool of type docker, served by Prefect's own worker as runnerd installs and keeps it; there is no docker here."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from tests.kits.daemon import KILL, TERM, alive, eventually
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import PoolHost, new_pool, pools_of

Json = Any
CACHE = Path.home() / ".cache" / "pip"  # whoever has these packages already need not fetch them again


def beat(host: PoolHost, pool: str) -> str | None:
    """When this host's worker was last heard of."""
    found = host.api.call("POST", f"/work_pools/{pool}/workers/filter", {})
    return next((one["last_heartbeat_time"] for one in found if one["name"] == host.name), None)


def test_a_docker_pool_is_served_by_prefects_worker(prefect3: PrefectServer) -> None:
    pool = new_pool()
    host = PoolHost(prefect3)

    def worker() -> Json:
        return host.pool(pool)["worker"] or {}

    def running(restarts: int) -> Json:
        def look() -> bool:
            found = worker()
            return found.get("state") == "running" and found["restarts"] == restarts

        eventually(look, f"the worker to run; the log:\n{host.said()}\nits status: {worker()}", limit_s=400.0)
        return worker()

    home = host.root / "home"
    home.mkdir()
    quick = f"PIP_CACHE_DIR: {CACHE}, PIP_NO_COMPILE: '1', PREFECT_WORKER_QUERY_SECONDS: '2'"
    its = f"{{HOME: {home}, {quick}, DOCKER_HOST: 'unix://{host.root}/no-docker.sock'}}"
    with pools_of(host, f"pools: [{{name: {pool}, type: docker, run: {{environment: {its}}}}}]\n"):
        host.serves(pool)
        eventually(lambda: worker().get("state") == "installing", "an installation", log=host.said)
        first = running(restarts=0)
        assert first["package"] == "prefect-docker"
        assert first["python"].startswith(f"{home}/.cache/runnerd/workers/docker-")
        eventually(lambda: host.worker(pool) == "ONLINE", f"it to be online:\n{Path(first['output']).read_text()}")

        host.signal(KILL)
        host.wait()
        host.start()
        eventually(lambda: worker().get("pid") == first["pid"], "it to be found again", log=host.said)

        before = beat(host, pool)
        os.kill(first["pid"], signal.SIGKILL)
        second = running(restarts=1)
        assert second["pid"] != first["pid"]
        eventually(lambda: beat(host, pool) != before, "a heartbeat")

        run_id = host.create_run(host.deploy(pool, "d"))
        host.ends(run_id, "CRASHED")
        eventually(
            lambda: "Could not connect to Docker" in (host.pool(pool)["problem"] or ""), "its own words in status"
        )
        assert "Could not connect to Docker" in host.ctl("status").stdout

        host.signal(TERM)
        assert host.wait() == 0
        assert not alive(second["pid"])
        assert f"Worker '{host.name}' stopped!" in Path(second["output"]).read_text()
