"""Start and end a real Prefect server: the environment from .envs/, the rest from a directory of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.kits.checkout import ROOT

ENVS = ROOT / ".envs"
START_LIMIT_S = 300.0  # seconds on an idle machine, minutes on one that is being tested on
STOP_LIMIT_S = 30.0
NEEDED = ("PATH", "LANG", "LC_ALL", "TMPDIR", "RUNNERD_TEST_RUN")


@dataclass(frozen=True)
class PrefectServer:
    """A running server. `python` runs flows against it, given `environment`."""

    url: str
    python: str
    major: int
    version: str
    environment: dict[str, str] = field(repr=False)
    pid: int = 0


@contextlib.contextmanager
def running_server(major: int, home: Path, **settings: str) -> Iterator[PrefectServer]:
    """A server of this major with its files in `home` and these settings on top; ended on leaving."""
    env = Path(os.environ.get(f"RUNNERD_TEST_PREFECT{major}") or ENVS / f"prefect{major}")  # make oldest-prefect
    python = env / "bin" / "python"
    if not (env / "stamp").exists():
        pytest.fail(f"there is no {python}: run `make test` once, or tests/envs/make.sh prefect{major}")
    for attempt in range(5):
        process, port = _start(python, home, attempt, settings)
        try:
            if _came_up(process, port):
                yield _described(python, major, port, home, process.pid)
                return
        finally:
            _end(process)
        if "address already in use" not in _log(home, attempt):
            pytest.fail(f"Prefect {major} did not start; its log ends:\n{_log(home, attempt)[-4000:]}")
    pytest.fail(f"Prefect {major} found no free port in five attempts")


def _start(python: Path, home: Path, attempt: int, settings: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:  # another process may take the port before the server does: see the attempts
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    environment = {key: os.environ[key] for key in NEEDED if key in os.environ}
    environment |= {
        "HOME": str(home),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # It would fail a pause whose time is over, at any moment, before a test has seen what runnerd says of it.
        "PREFECT_API_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_UI_ENABLED": "false",
        **settings,
    }
    command = [str(python.with_name("prefect")), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(home / f"server-{attempt}.log", "wb") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=_end_with_the_tests,
        )
    return process, port


def _end_with_the_tests() -> None:
    """Have the kernel interrupt the server should pytest be killed, which runs no fixture's end."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGINT)


def _came_up(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it answers before it ends or the limit is over."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
            return process.poll() is None
        time.sleep(0.1)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it started: its session is its own, so its group is exactly that."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.send_signal(signal.SIGINT)
        process.wait(STOP_LIMIT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _log(home: Path, attempt: int) -> str:
    return (home / f"server-{attempt}.log").read_text(errors="replace")


def _described(python: Path, major: int, port: int, home: Path, pid: int) -> PrefectServer:
    url = f"http://127.0.0.1:{port}/api"
    flow_home = home / "flows"
    flow_home.mkdir(exist_ok=True)
    environment = {key: os.environ[key] for key in NEEDED if key in os.environ}
    environment |= {"HOME": str(flow_home), "PREFECT_HOME": str(flow_home), "PREFECT_API_URL": url, "DO_NOT_TRACK": "1"}
    (installed,) = python.parent.parent.glob("lib/python3*/site-packages/prefect-[0-9]*.dist-info")
    version = installed.name.removeprefix("prefect-").removesuffix(".dist-info")
    return PrefectServer(url=url, python=str(python), major=major, version=version, environment=environment, pid=pid)
