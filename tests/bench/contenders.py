"""The contenders: runnerd (cold, warm, serving a pool), flow.serve() and prefect worker, each started and ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.asking import Asker
from tests.bench.flow_files import ENTRYPOINT, FLOW, write_files
from tests.bench.measuring import tree
from tests.bench.rows import COLD
from tests.bench.waiting import Deadline, NotReached
from tests.kits.prefect_servers import PrefectServer

MARK = "RUNNERD_BENCH"  # in the environment of whatever is started, so that it is found in the end
READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Setting:
    """How a contender is started; `url` is the server's or that of a proxy in front of it."""

    server: PrefectServer
    url: str
    limit: int
    poll_s: float | None = None
    deployments: int = 1


class Contender:
    """One running contender in a directory of its own. Subclasses start it and say when it is ready."""

    grace_s = 30.0

    def __init__(self, who: str, setting: Setting, asker: Asker, deadline: Deadline) -> None:
        self.who = who
        self.setting, self.asker, self.deadline = setting, asker, deadline
        self.mark = uuid.uuid4().hex
        self.name = f"{who}-{self.mark[:8]}"
        self.directory = Path(tempfile.mkdtemp(prefix="runnerd-"))  # short: Unix sockets are in it
        self.directory.chmod(0o755)
        write_files(self.directory)
        self._process: subprocess.Popen[bytes] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it serves all its deployments."""
        self.prepare()
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                self.argv(), env=self.environment(), cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        limit_s = READY_S + self.setting.deployments
        self.deadline.wait(self._is_ready, f"{self.name} to be ready", limit_s, every_s=0.1)

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise NotReached(f"{self.name} ended with {self._process.returncode}: {self.said()}")
        return self.ready()

    def close(self) -> None:
        """Kill its tree and whatever carries its mark; remove its directory. Its runs are over, or meant to be."""
        kill(self._tree())
        kill_marked(self.mark)
        if self._process is not None:
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _tree(self) -> list[psutil.Process]:
        try:
            return [] if self._process is None else tree(self.roots())
        except psutil.NoSuchProcess:
            return []  # it has ended by itself, or was closed before

    # --- what a subclass says -------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Whatever has to be there before the start."""

    def argv(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def roots(self) -> list[psutil.Process]:
        """The processes that were started; all others descend from them."""
        assert self._process is not None
        return [psutil.Process(self._process.pid)]

    def started_how(self, run_id: str) -> str:
        """How the contender says that it started a run: cold or warm."""
        return COLD

    # --- what they share --------------------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        return self.directory / "log.txt"

    def said(self) -> str:
        """The end of its log, for a failure."""
        return self.log.read_text(errors="replace")[-600:] if self.log.exists() else ""

    def logged_503(self) -> int:
        """How many lines of its log mention a 503."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return sum("503" in line and "Service Unavailable" in line for line in text.splitlines())

    def names(self) -> list[str]:
        return [f"{self.name}-{number:04d}" for number in range(self.setting.deployments)]

    def deployment_id(self) -> str:
        """Of its first deployment."""
        found = self.asker.deployment_id(FLOW, self.names()[0])
        if found is None:
            raise NotReached(f"{self.name} has no deployment on the server")
        return found

    def environment(self) -> dict[str, str]:
        home = {"HOME": str(self.directory), "PREFECT_HOME": str(self.directory / "home")}
        return {**self.setting.server.environment, **home, **self.prefect_settings(), MARK: self.mark}

    def prefect_settings(self) -> dict[str, str]:
        every = {} if self.setting.poll_s is None else {
            "PREFECT_RUNNER_POLL_FREQUENCY": f"{self.setting.poll_s:g}",
            "PREFECT_WORKER_QUERY_SECONDS": f"{self.setting.poll_s:g}",
        }  # fmt: skip
        return {"PREFECT_API_URL": self.setting.url, "PYTHONUNBUFFERED": "1", **every}


class Serve(Contender):
    """`flow.serve()`, or `serve()` where there are several deployments."""

    def argv(self) -> list[str]:
        return [self.setting.server.python, "serve.py", str(self.setting.limit), *self.names()]

    def ready(self) -> bool:
        return "polling for scheduled runs" in " ".join(self.log.read_text(errors="replace").split())


class Worker(Contender):
    """`prefect worker start --type process` on a pool of its own."""

    def prepare(self) -> None:
        make_pool(self.asker, self.name, self.names(), self.directory)

    def argv(self) -> list[str]:
        prefect = str(Path(self.setting.server.python).with_name("prefect"))
        words = ["--type", "process", "--pool", self.name, "--name", self.name, "--limit", str(self.setting.limit)]
        return [prefect, "worker", "start", *words]

    def ready(self) -> bool:
        return f"Worker '{self.name}' started!" in " ".join(self.log.read_text(errors="replace").split())


def make_pool(asker: Asker, pool: str, deployments: list[str], directory: Path) -> None:
    """A process pool and deployments in it whose code is in `directory`."""
    asker.call("POST", "/work_pools/", {"name": pool, "type": "process", "base_job_template": {}})
    flow_id = asker.call("POST", "/flows/", {"name": FLOW})["id"]
    step: dict[str, Any] = {"prefect.deployments.steps.set_working_directory": {"directory": str(directory)}}
    body = {"flow_id": flow_id, "work_pool_name": pool, "entrypoint": ENTRYPOINT, "pull_steps": [step]}
    for name in deployments:
        asker.call("POST", "/deployments/", {**body, "name": name, "enforce_parameter_schema": False})


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL to these, and not to others that have got their ids since."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=2)


def kill_marked(mark: str) -> None:
    """SIGKILL to every process whose environment has this mark, until there is none: one may be forking."""
    for _ in range(20):
        found = [process for process in psutil.process_iter() if _has_mark(process, mark)]
        if not found:
            return
        kill(found)


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False
