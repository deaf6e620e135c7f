"""`api.url: embedded`: a private Prefect server on loopback, kept running through the spawner.

Invariants: it belongs to the spawner, so it outlives the daemon like the flows that report to it; its port is
chosen once and kept, so that flows which started under it still reach it; its data is under the state directory.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import pwd
import socket
import sys
from collections.abc import Callable

from runnerd.alerts import Alert
from runnerd.errors import ConfigError, SpawnerError
from runnerd.link import SpawnerLink
from runnerd.logs import Log
from runnerd.model import LaunchSpec, Problem
from runnerd.words import exit_words

KEY = "prefect-server"
_RESTART_FIRST_S = 1.0
_RESTART_CAP_S = 60.0
_STEADY_S = 60.0  # a server that lived this long starts afresh in the count of restarts


def embedded_url(state_dir: str) -> str:
    """The server's URL; its port is chosen at the first call and remembered. Raises ConfigError without Prefect."""
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
    """Keeps the server up. `changed` is called when it was started or has ended."""

    def __init__(
        self, *, link: SpawnerLink, url: str, state_dir: str, log_dir: str, log: Log, changed: Callable[[], None]
    ) -> None:
        self._link = link
        self._port = int(url.rsplit(":", 1)[1].split("/", 1)[0])
        self._home = os.path.join(state_dir, "prefect-server")
        self._log_dir = log_dir
        self._log = log
        self._changed = changed
        self._attempt = 0
        self._woken = asyncio.Event()
        self.problem: str | None = None

    async def keep(self) -> None:
        """Keep it running for ever; restarts come slower each time it ends early."""
        self._link.listen(KEY, self._woken.set)
        delay_s = _RESTART_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            words = await self._serve_once()
            if loop.time() - began > _STEADY_S:
                delay_s = _RESTART_FIRST_S
            self.problem = f"the embedded Prefect server {words}; see {self._output()}"
            said = {"words": words, "output": self._output(), "again_in_s": delay_s}
            self._log.error("the embedded Prefect server ended", **said, alert=Alert.SERVER_ENDED)
            self._changed()
            await asyncio.sleep(delay_s)
            delay_s = min(_RESTART_CAP_S, delay_s * 2)

    async def _serve_once(self) -> str:
        """Start it, or find it running, and wait for its end; how that was, in words."""
        await self._link.wait_up()
        alive = [one.attempt for one in self._link.records() if one.key == KEY and one.phase != "exited"]
        known = [one.attempt for one in self._link.records() if one.key == KEY]
        self._attempt = max(alive) if alive else max([self._attempt, *known]) + 1
        for old in known:
            if old != self._attempt:
                await self._link.forget(KEY, old)
        try:
            seen = await self._link.spawn(self._spec())
        except SpawnerError as error:
            return str(error)
        self._log.info("the embedded Prefect server runs", port=self._port, pid=seen.identity and seen.identity.pid)
        while True:
            self._woken.clear()
            latest = self._link.record(KEY, self._attempt)
            if latest is None and self._link.connected:
                return "was lost"
            if latest is not None and latest.phase == "exited":
                return latest.error.message if latest.error else exit_words(latest.exit)
            await self._woken.wait()

    async def stop(self) -> None:
        """End it; only when nothing of ours needs it any more."""
        if not self._alive():
            return
        await self._link.stop(KEY, self._attempt, reason="evict")
        while self._alive():
            self._woken.clear()
            if self._alive():
                await self._woken.wait()
        await self._link.forget(KEY, self._attempt)

    def _alive(self) -> bool:
        seen = self._link.record(KEY, self._attempt)
        return seen is not None and seen.phase != "exited"

    def _output(self) -> str:
        return os.path.join(self._log_dir, "prefect-server.log")

    def _spec(self) -> LaunchSpec:
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
            attempt=self._attempt,
            argv=argv,
            environment=environment,
            working_directory=self._home,
            output=self._output(),
            user=account.pw_name,
            output_max_bytes=16 * 2**20,
            stop_timeout_s=15.0,
        )
