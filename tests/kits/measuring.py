"""What measuring scripts ask a daemon and the kernel while many runs are under way."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.kits.bench import Scratch


class Control(http.client.HTTPConnection):
    """A connection to the control socket, kept from one request to the next."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body)
        self.request(method, path, content, {"Content-Type": "application/json"})
        answer = self.getresponse().read()
        self.close()
        return json.loads(answer)

    def time(self, path: str) -> float:
        before = time.perf_counter()
        self.call("GET", path)
        return time.perf_counter() - before


class LagWatch(threading.Thread):
    """Asks again and again for what the daemon has in memory: what that takes is how long its loop stood still."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._control = Control(path)
        self._over = threading.Event()
        self._taken: list[float] = []

    def run(self) -> None:
        while not self._over.wait(0.005):
            self._taken.append(self._control.time("/v1/health"))

    def stop(self) -> list[float]:
        """The seconds that each answer took, the shortest first."""
        self._over.set()
        self.join()
        return sorted(self._taken)


def memory_mib(process: psutil.Process, what: str) -> float:
    """Of the process, the lines of smaps_rollup whose name `what` matches."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(rf"^{what}:\s+(\d+) kB", text, re.MULTILINE)) / 1024


def end_runs(host: Scratch, control: Control, leaders: list[int]) -> None:
    with suppress(OSError, http.client.HTTPException):
        control.call("POST", "/v1/cancel", {"all": True, "now": True})
        host.wait("the runs end", lambda: not any(map(psutil.pid_exists, leaders)), every_s=1)
    for leader in leaders:
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
