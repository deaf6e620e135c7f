"""A whole runnerd for tests: its directories, the real programs, and waiting for what they are to do."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.kits.checkout import ROOT
from tests.kits.fakes.fake_prefect import FakePrefect

T = TypeVar("T")
GENEROUS_S = 120.0
ANSWER_S = 300.0  # Prefect 3 on SQLite stands still for a minute and more now and then
# Tests that run as root start flows as root, which takes two words of whoever starts the daemon.
FLOWS_AS_ROOT = {"RUNNERD_FLOW_USER": "root", "RUNNERD_FLOW_USERS": "root,nobody"} if os.geteuid() == 0 else {}
_READY = " ready "  # in the log of a daemon
FLOWS = ROOT / "tests" / "server" / "flows.py"


def eventually(
    look: Callable[[], T], what: str, limit_s: float = GENEROUS_S, *, log: Callable[[], str] | None = None
) -> T:
    """What `look` sees once it sees something; a failure that says what was waited for, when it never does.

    `log` is read when the wait has failed: what happened meanwhile is what explains it.
    """
    until = time.monotonic() + limit_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() >= until:
            logged = f"; the log:\n{log()}" if log is not None else ""
            raise AssertionError(f"waited {limit_s:g} s for {what}; last seen: {found!r}{logged}")
        time.sleep(0.1)


class Api:
    """Prefect's API, asked directly: tests believe nobody else."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        for _ in range(100):
            try:
                with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
                    text = answer.read()
                    return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                if error.code != 503:  # SQLite servers are busy now and then
                    raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from None
            time.sleep(0.1)
        raise AssertionError(f"{method} {path}: 503 a hundred times")

    def run(self, run_id: str) -> Any:
        return self.call("GET", f"/flow_runs/{run_id}")

    def state(self, run_id: str) -> str:
        return str(self.run(run_id)["state"]["type"])

    def history(self, run_id: str) -> list[str]:
        """The types of all states the run went through."""
        return [state["type"] for state in self.call("GET", f"/flow_run_states/?flow_run_id={run_id}")]

    def deployment(self, flow: str, name: str) -> Any:
        return self.call("GET", f"/deployments/name/{flow}/{name}")

    def runs_of(self, deployment_id: str, *states: str) -> Any:
        chosen = {"deployment_id": {"any_": [deployment_id]}}, {"type": {"any_": list(states)}}
        body = {"flow_runs": {**chosen[0], "state": chosen[1]} if states else chosen[0], "limit": 200}
        return self.call("POST", "/flow_runs/filter", body)

    def cancel(self, run_id: str) -> None:
        """What `prefect flow-run cancel` does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.call("POST", f"/flow_runs/{run_id}/set_state", {"state": state})


class Host:
    """One runnerd host in a directory of its own; a short one, because Unix sockets have short paths."""

    def __init__(self, *, url: str, python: str, environ: Mapping[str, str] | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="runnerd-"))
        self.root.chmod(0o755)
        self.config = self.root / "etc"
        self.drop_ins = self.config / "conf.d"
        self.drop_ins.mkdir(parents=True)
        self.api = Api(url)
        self.log = self.root / "daemon.log"
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "NOTIFY_"))}
        self.environ.update(FLOWS_AS_ROOT)
        self.environ.update(environ or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._ready_before = 0  # how often earlier daemons have logged that they are ready
        shutil.copy(FLOWS, self.config / "flows.py")
        own_home = f"{{PREFECT_HOME: '{self.root}/prefect-home'}}"  # else flows make ~/.prefect of whoever tests
        run = f"{{python: '{python}', environment: {own_home}}}"
        self.write_main(f"api: {{url: '{url}', poll_interval: 1s}}\nrun: {run}\n")

    # --- configuration ------------------------------------------------------------------------------------------

    def write_main(self, text: str) -> None:
        (self.config / "runnerd.yaml").write_text(text)

    def drop_in(self, name: str, text: str) -> Path:
        path = self.drop_ins / name
        path.write_text(text)
        return path

    # --- the daemon ---------------------------------------------------------------------------------------------

    @property
    def argv(self) -> list[str]:
        names = {"--config": "etc", "--runtime-dir": "run", "--state-dir": "state", "--log-dir": "log"}
        return [sys.executable, "-m", "runnerd", *(w for f, n in names.items() for w in (f, str(self.root / n)))]

    def start(self, *extra: str) -> None:
        self.launch(*extra)
        eventually(self._serves, f"runnerd to be ready; its log:\n{self.said()}")

    def launch(self, *extra: str) -> None:
        """Start the daemon, and wait for nothing."""
        self._ready_before = self.said().count(_READY)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.argv, *extra], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ,
                start_new_session=True,
            )  # fmt: skip

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"runnerd ended with {self.process.returncode}:\n{self.said()}"
        return self.said().count(_READY) > self._ready_before and self.ctl("health").returncode in (0, 1)

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the daemon alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None
        self.log.write_bytes(b"")

    def wait(self) -> int:
        assert self.process is not None
        status = self.process.wait(GENEROUS_S)
        self.process = None
        return status

    def close(self) -> None:
        """End the daemon, its runs and its spawner, and remove the directory."""
        if self.process is not None and self.process.poll() is None:
            self.ctl("cancel", "--all", "--now")
            self.process.terminate()
            try:
                self.process.wait(GENEROUS_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in self.left():
            psutil.Process(pid).kill()
        eventually(lambda: not self.left(), "the spawner to leave")
        shutil.rmtree(self.root)

    def left(self) -> list[int]:
        """Processes that were started for this host and are still there."""
        mark = str(self.root)
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if process.status() != psutil.STATUS_ZOMBIE and any(mark in word for word in words):
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    # --- runnerctl ----------------------------------------------------------------------------------------------

    def ctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        socket = str(self.root / "run" / "control.sock")
        argv = [sys.executable, "-m", "runnerd.cli", "--socket", socket, *words]
        return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=ANSWER_S)

    def json(self, *words: str) -> Any:
        asked = self.ctl(*words, "--json")
        assert asked.stdout, f"runnerctl {' '.join(words)}: {asked.stderr}"
        document = json.loads(asked.stdout)
        return self._settled(document) if words[:1] == ("reload",) else document

    def _settled(self, reloaded: Any) -> Any:
        """The answer to a reload once what it asks for is registered: a real server may answer nothing for a while."""
        if reloaded["settled"] or not reloaded["applied"]:
            return reloaded

        def again() -> Any:
            document = json.loads(self.ctl("reload", "--json").stdout)
            return document if document["settled"] else None

        last = eventually(again, "the reload to be settled", ANSWER_S, log=self.said)
        return {**reloaded, **{key: last[key] for key in ("ok", "settled", "problems")}}

    def run_now(self, deployment: str, **parameters: object) -> str:
        """Create a run; its id."""
        words = [word for key, value in parameters.items() for word in ("-p", f"{key}={json.dumps(value)}")]
        document = self.json("run", deployment, *words)
        return str(document["id"])

    def registered(self, *names: str) -> None:
        def look() -> bool:
            states = {one["name"]: one["state"] for one in self.json("deployments")}
            return all(states.get(name) == "ready" for name in names)

        eventually(look, f"{names} to be registered", log=self.said)

    def document(self, run_id: str) -> Any:
        return self.json("status", run_id)

    def running(self, run_id: str) -> Any:
        """The run's document once its flow code has begun."""
        eventually(lambda: self.api.state(run_id) == "RUNNING", f"{run_id} to run", log=self.said)
        return self.document(run_id)

    def ended(self, run_id: str) -> Any:
        """The run's document once it is over and told."""

        def look() -> Any:
            document = self.document(run_id)
            return document if document["phase"] == "done" else None

        return eventually(look, f"{run_id} to end", log=self.said)


@contextlib.contextmanager
def host_at(prefect: FakePrefect) -> Iterator[Host]:
    """A host whose API is this fake one on a loopback port; closed in the end."""
    with prefect.serve() as url:
        host = Host(url=url, python=sys.executable)
        try:
            yield host
        finally:
            host.close()


@contextlib.contextmanager
def serving(host: Host, deployments: str, *names: str) -> Iterator[Host]:
    """The host with this drop-in, once these deployments are registered; closed in the end."""
    host.drop_in("10-test.yaml", deployments)
    try:
        host.start()
        host.registered(*names)
        yield host
    finally:
        host.close()


def alive(pid: int) -> bool:
    """Whether there is such a process, zombies aside."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


TERM, HUP, INT, KILL = signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL
