"""What the measuring scripts share: an installed runnerd on a scratch directory, and one line per measure.

The daemon is the copy in .venv-lean: what it costs is asked of the package with its own libraries and nothing else.
The Prefect server is the fake one, which counts what it is asked, or one of the caller's; flows load by a stand-in for
Prefect.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.kits.checkout import ROOT
from tests.kits.daemon import FLOWS_AS_ROOT
from tests.kits.fakes.fake_prefect import FakePrefect

BIN = ROOT / ".venv-lean" / "bin"
PATIENCE_S = 180.0

STAND_IN = {
    "prefect/__init__.py": "__version__ = '3.8.8'\n",
    "prefect/exceptions.py": "class ScriptError(Exception): ...\nclass MissingFlowError(Exception): ...\n",
    "prefect/flows.py": (
        "class Flow:\n    name = 'etl'\n    description = version = None\n"
        "def load_flow_from_entrypoint(entrypoint):\n    return Flow()\n"
    ),
    "prefect/utilities/__init__.py": "",
    "prefect/utilities/callables.py": (
        "class Schema:\n"
        "    def model_dump(self, mode, exclude_unset):\n"
        "        return {'title': 'Parameters', 'type': 'object', 'properties': {}}\n"
        "def parameter_schema(flow):\n    return Schema()\n"
    ),
    "etl.py": "",
}


def busy() -> str:
    """How much else this machine did: a wall-clock measure on a loaded one says little."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"


class Budget:
    """Collects measures; `exit_status` is 1 when one was over."""

    def __init__(self) -> None:
        self._over = False

    def measure(self, what: str, value: float, unit: str, at_most: float | None = None, note: str = "") -> None:
        over = at_most is not None and value > at_most
        self._over = self._over or over
        limit = "" if at_most is None else f", at most {at_most:g}"
        print(f"{what}: {value:.4g} {unit}{limit}{' OVER BUDGET' if over else ''}{f' ({note})' if note else ''}")
        sys.stdout.flush()

    @property
    def exit_status(self) -> int:
        return int(self._over)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon and the spawner it started."""

    process: psutil.Process
    spawner: psutil.Process

    def processor_s(self) -> float:
        """What the daemon has used so far."""
        used = self.process.cpu_times()
        return float(used.user + used.system)


class Scratch:
    """A scratch directory with a configuration in it, and the URL of the server it leads to."""

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self._url = url
        for name in ("conf.d", "run", "state", "log", "work"):
            (root / name).mkdir()
        for name, text in STAND_IN.items():
            path = root / "work" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def configure(self, deployments: int, *, poll_interval: str = "10s") -> None:
        """One drop-in for each deployment."""
        (self.root / "runnerd.yaml").write_text(
            f"api: {{url: '{self._url}', poll_interval: {poll_interval}}}\n"
            f"run: {{python: {BIN / 'python'}, working_directory: {self.root / 'work'}}}\n"
        )
        for number in range(deployments):
            (self.root / "conf.d" / f"{number:05d}.yaml").write_text(
                "deployments:\n"
                f"  - name: job-{number:05d}\n"
                "    entrypoint: etl.py:nightly\n"
                f'    schedules: [{{cron: "{number % 60} 2 * * *", timezone: Europe/Berlin}}]\n'
                f"    parameters: {{part: {number}}}\n"
                "    tags: [etl]\n"
                "    concurrency_limit: 1\n"
            )

    def runnerctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        control = str(self.root / "run" / "control.sock")
        command = [str(BIN / "runnerctl"), "--socket", control, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def status(self) -> Any:
        """The status document, None while there is no daemon to ask."""
        done = self.runnerctl("status", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def ready(self) -> int:
        """How many deployments are registered."""
        status = self.status() or {"deployments": []}
        return sum(deployment["state"] == "ready" for deployment in status["deployments"])

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """Runs until it is left; then it hands over, and the spawner is ended as well."""
        directories = ["--runtime-dir", "run", "--state-dir", "state", "--log-dir", "log"]
        environment = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        environment |= FLOWS_AS_ROOT
        with open(self.root / "daemon.log", "ab") as log:
            process = subprocess.Popen(
                [str(BIN / "runnerd"), "--config", str(self.root), *directories],
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        spawner = None
        try:
            self.wait("the daemon answers", lambda: process.poll() is not None or self.status() is not None)
            if process.poll() is not None:
                raise SystemExit(f"the daemon ended: {process.returncode}; it said:\n{self.said()}")
            self.wait("the spawner serves", lambda: spawner_of(self.root))  # the daemon answers before it has one
            spawner = spawner_of(self.root)
            assert spawner is not None
            yield Daemon(psutil.Process(process.pid), spawner)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)
            left = spawner or spawner_of(self.root)
            if left is not None and left.is_running():
                left.terminate()
                left.wait(PATIENCE_S)

    def said(self) -> str:
        return "".join((self.root / "daemon.log").read_text().splitlines(keepends=True)[-20:])

    def wait(
        self, what: str, reached: Callable[[], object], *, every_s: float = 0.1, patience_s: float = PATIENCE_S
    ) -> None:
        deadline = time.monotonic() + patience_s
        while not reached():
            if time.monotonic() > deadline:
                raise SystemExit(f"waited in vain: {what}; the daemon said:\n{self.said()}")
            time.sleep(every_s)


def spawner_of(root: Path) -> psutil.Process | None:
    """Who listens on its socket: on the way there it forks, so a look for its command line finds the wrong one."""
    for path in root.glob("run*/spawner.sock"):
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError, psutil.Error):
            connection.connect(str(path))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return psutil.Process(struct.unpack("3i", credentials)[0])
    return None


class CountedScratch(Scratch):
    """One that leads to a fake server."""

    def __init__(self, root: Path, url: str, prefect: FakePrefect) -> None:
        super().__init__(root, url)
        self.prefect = prefect


@contextmanager
def scratch() -> Iterator[CountedScratch]:
    prefect = FakePrefect(major=3)
    with _directory() as root, prefect.serve() as url:
        yield CountedScratch(root, url, prefect)


@contextmanager
def scratch_at(url: str) -> Iterator[Scratch]:
    with _directory() as root:
        yield Scratch(root, url)


@contextmanager
def _directory() -> Iterator[Path]:
    if not (BIN / "runnerd").exists():
        raise SystemExit("cannot measure: there is no .venv-lean; say make bench")
    with tempfile.TemporaryDirectory(prefix="runnerd-bench-") as root:
        yield Path(root)
