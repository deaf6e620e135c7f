"""`api.url: embedded`: runs a private Prefect server on loopback through the spawner.

Invariants: the server is the spawner's child and outlives the daemon, like the flows that report to the server. Its
port is chosen once and stored, so that flows of an earlier start still reach the server. Its data is in the state
directory.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import socket
import sys
from collections.abc import AsyncIterator

from runnerd.core.errors import ConfigError
from runnerd.core.place import Problem
from runnerd.core.problems import Problems
from runnerd.core.process import LaunchSpec
from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.processes.link import SpawnerLink
from runnerd.processes.long_lived import LongLived
from runnerd.processes.protocol import Record
from runnerd.system.paths import Paths

KEY = "prefect-server"
STOP_TIMEOUT_S = 15.0


def embedded_url(state_dir: str) -> str:
    """Return the server's URL; choose and store its port at the first call. Raises ConfigError without Prefect."""
    if importlib.util.find_spec("prefect") is None:
        words = f"api.url is embedded, but {sys.executable} has no prefect; install runnerd[embedded], or give a URL"
        raise ConfigError([Problem(message=words)])
    path = os.path.join(state_dir, "embedded.json")
    try:
        with open(path, encoding="utf-8") as file:
            port = int(json.load(file)["port"])
    except (OSError, ValueError, KeyError, TypeError):
        port = _free_port()
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"port": port}, file)
    return f"http://127.0.0.1:{port}/api"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedServer:
    """Keeps the embedded server running. `key` is that of its process."""

    key = KEY

    def __init__(self, *, link: SpawnerLink, url: str, paths: Paths, log: Log, problems: Problems) -> None:
        self._port = int(url.rsplit(":", 1)[1].split("/", 1)[0])
        self._home = os.path.join(paths.state, "prefect-server")
        self._log_dir = paths.log
        self._log = log
        self._suspended = False
        problems.register_text(lambda: self.problem)
        self._kept = LongLived(
            link=link,
            wanted_key=lambda: None if self._suspended else KEY,
            owns=KEY.__eq__,
            make_spec=self._make_spec,
            on_running=self._began,
            on_failure=self._ended,
        )

    @property
    def problem(self) -> str | None:
        """Why the server is not running, or keeps ending; None while it runs."""
        words = self._kept.problem
        return f"the embedded Prefect server {words}; see {self._output()}" if words else None

    async def run(self) -> None:
        """Keep the server running until `stop`; restart it more slowly each time it ends early."""
        await self._kept.run()

    async def stop(self) -> None:
        """End the server; only after the last flow, because flows report to it."""
        await self._kept.stop()

    @contextlib.asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Have the server stopped meanwhile, and started again afterwards."""
        self._suspended = True
        self._kept.wake()
        try:
            await self._kept.wait_until_unwanted()
            yield
        finally:
            self._suspended = False
            self._kept.wake()

    def _began(self, seen: Record, _fresh: bool) -> None:
        self._log.info("the embedded Prefect server runs", port=self._port, pid=seen.identity and seen.identity.pid)

    def _ended(self, words: str, again_in_s: float) -> None:
        fields = {"words": words, "output": self._output(), "again_in_s": again_in_s}
        self._log.error("the embedded Prefect server ended", **fields, alert=Alert.SERVER_ENDED)

    def _output(self) -> str:
        return os.path.join(self._log_dir, "prefect-server.log")

    async def _make_spec(self) -> LaunchSpec:
        os.makedirs(self._home, mode=0o700, exist_ok=True)
        account = pwd.getpwuid(os.geteuid())
        environment = {
            "PATH": f"{os.path.dirname(sys.executable)}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": self._home,
            "USER": account.pw_name,
            "PREFECT_HOME": self._home,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_API_URL": f"http://127.0.0.1:{self._port}/api",
        }
        argv = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self._port))
        return LaunchSpec(
            key=KEY,
            attempt=0,  # LongLived sets the number
            argv=argv,
            environment=environment,
            working_directory=self._home,
            output=self._output(),
            user=account.pw_name,
            own=True,
            output_max_bytes=16 * 2**20,
            stop_timeout_s=STOP_TIMEOUT_S,
        )
