"""One runnerd host for many rounds: the daemon of chaos_daemon.py behind the proxy, and what can be seen of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runnerd.control.client import ControlClient
from runnerd.core.errors import ControlError
from runnerd.warm.plan import WARM_PREFIX
from tests.chaos.chaos_plan import POOLED
from tests.kits.daemon import Api, Host, eventually
from tests.kits.prefect_servers import PrefectServer

HERE = Path(__file__).parent
DEPLOYMENTS = """
deployments:
  - {name: quick, entrypoint: "chaos_flows.py:quick"}
  - {name: raises, entrypoint: "chaos_flows.py:raises"}
  - {name: exits, entrypoint: "chaos_flows.py:exits"}
  - {name: segv, entrypoint: "chaos_flows.py:segv"}
  - {name: sleeps, entrypoint: "chaos_flows.py:sleeps"}
  - {name: stubborn, entrypoint: "chaos_flows.py:stubborn", run: {stop_timeout: 2s}}
  - {name: leaves, entrypoint: "chaos_flows.py:leaves"}
  - {name: leads, entrypoint: "chaos_flows.py:leads"}
  - {name: overruns, entrypoint: "chaos_flows.py:overruns", run: {runtime_max: 8s}}
  - {name: broken, entrypoint: "chaos_broken.py:broken"}
"""
POOL = "chaos"
LIMITED = '  - {name: limited, entrypoint: "chaos_flows.py:limited", concurrency_limit: 1}\n'


class PatientApi(Api):
    """Servers on SQLite that are kept busy answer all kinds of 5xx now and then."""

    def call(self, method: str, path: str, body: object = None) -> Any:
        for _ in range(20):
            try:
                return super().call(method, path, body)
            except (AssertionError, OSError) as error:
                last = error
                if isinstance(error, AssertionError) and ": 4" in str(error):
                    raise
            time.sleep(0.5)
        raise last


class ChaosHost(Host):
    """A host whose flows and daemon reach the server through the proxy; we ask the server itself."""

    def __init__(self, *, server: PrefectServer, proxy_url: str) -> None:
        super().__init__(url=proxy_url, python=server.python)
        self.api = PatientApi(server.url)
        self.major = server.major
        for file in ("chaos_flows.py", "chaos_broken.py"):
            shutil.copy(HERE / file, self.config / file)
        (self.config / "flows.py").unlink()
        self.marks = self.root / "marks"
        self.marks.mkdir()
        self.plan_file = self.root / "plan.json"
        self.tmp = self.root / "tmp"  # where runs of the pool get their directories
        self.tmp.mkdir()
        variables = {"PREFECT_HOME": f"{self.root}/prefect-home", "TMPDIR": str(self.tmp)}
        environment = json.dumps({**variables, "PREFECT_LOGGING_TO_API_ENABLED": "false"})
        self.write_main(
            f"api: {{url: '{proxy_url}', poll_interval: 1s, request_timeout: 3s}}\nlimits: {{runs: 4}}\n"
            f"run: {{python: '{server.python}', environment: {environment}}}\n"
        )
        self.kinds = DEPLOYMENTS + (LIMITED if server.major == 3 else "")
        self.drop_in("10-chaos.yaml", self.kinds)
        self.drop_in("20-pool.yaml", f"pools: [{{name: {POOL}}}]\n")
        self.lives = 0
        self.logs: list[tuple[Path, int]] = []  # of this round, and where it begins in each
        self.ids: dict[str, str] = {}
        self.control = ControlClient(str(self.root / "run" / "control.sock"), timeout_s=5.0)

    # --- the daemon -------------------------------------------------------------------------------------------------

    @property
    def argv(self) -> list[str]:
        names = {"--config": "etc", "--runtime-dir": "run", "--state-dir": "state", "--log-dir": "log"}
        flags = [word for flag, name in names.items() for word in (flag, str(self.root / name))]
        return [sys.executable, "-m", "tests.chaos.chaos_daemon", "--plan", str(self.plan_file), *flags]

    def launch(self) -> None:
        """Start the daemon and do not wait; each life has a log of its own."""
        self.lives += 1
        self.log = self.root / f"daemon-{self.lives}.log"
        self.logs.append((self.log, 0))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ, start_new_session=True
            )

    def begin(self) -> None:
        """The first life: until every deployment is registered and nothing of that is left."""
        self.launch()
        eventually(self._serves, "runnerd to be ready")
        kinds = [line.split("name: ")[1].split(",")[0] for line in self.kinds.splitlines() if "name: " in line]
        self.registered(*kinds)
        self.ids = {kind: self.api.deployment(kind, kind)["id"] for kind in kinds}
        eventually(lambda: self.api.call("GET", f"/work_pools/{POOL}"), "the work pool")
        self.ids |= {kind: self._deploy_to_pool(kind, flow) for kind, flow in POOLED.items()}
        eventually(lambda: not self.records(), "the inspections to be forgotten")
        self.furniture = self.files()

    def _deploy_to_pool(self, kind: str, flow: str) -> str:
        """As somebody else would; the deployment's id."""
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(self.config)}}
        body = {
            "name": kind,
            "flow_id": self.api.call("POST", "/flows/", {"name": flow})["id"],
            "entrypoint": f"chaos_flows.py:{flow}",
            "pull_steps": [step],
            "work_pool_name": POOL,
        }
        return str(self.api.call("POST", "/deployments/", body)["id"])

    def turn_page(self) -> None:
        """A new round begins: what was said until now is not its log."""
        self.logs = [(self.log, self.log.stat().st_size)] if self.alive() else []

    def page(self) -> str:
        """What the daemons of this round said."""
        return "".join(path.read_bytes()[start:].decode(errors="replace") for path, start in self.logs)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def plan(self, document: dict[str, Any]) -> None:
        """Give the daemon that runs, and the next one, another plan."""
        beside = self.plan_file.with_suffix(".tmp")
        beside.write_text(json.dumps(document))
        beside.rename(self.plan_file)

    def send(self, number: int) -> None:
        """A signal to the daemon, if there is one."""
        if self.alive():
            self.signal(number)

    def status(self) -> Any:
        """What /v1/status says, None while nobody answers."""
        with contextlib.suppress(ControlError):
            return self.control.get("/v1/status")
        return None

    def phases(self) -> dict[str, str]:
        """The phases of the runs under way; empty while nobody answers."""
        with contextlib.suppress(ControlError):
            return {run["id"]: run["phase"] for run in self.control.get("/v1/runs") if run.get("phase")}
        return {}

    # --- processes --------------------------------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """Every process that carries our directory's name in its command or environment, zombies aside."""
        mark = str(self.root).encode()
        found = {}
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if mark in command or mark in Path(f"/proc/{pid}/environ").read_bytes():
                    found[pid] = command.replace(b"\0", b" ").decode(errors="replace")[:160]
        return found

    def left(self) -> list[int]:
        return sorted(self.processes())

    def spawner(self) -> int | None:
        """The spawner's pid."""
        socket = str(self.root / "run-spawner" / "spawner.sock")
        found = [pid for pid, command in self.processes().items() if socket in command and "/spawner/" in command]
        return max(found, default=None)

    def kill_spawner(self) -> bool:
        pid = self.spawner()
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def strangers(self) -> dict[int, str]:
        """Processes of ours that are neither the daemon nor the spawner, nor a warm interpreter that the status has."""
        own = {self.process.pid if self.process else None, self.spawner()}
        own |= {one["pid"] for one in (self.status() or {}).get("warm", ())}
        return {pid: command for pid, command in self.processes().items() if pid not in own}

    # --- files ------------------------------------------------------------------------------------------------------

    def files(self) -> set[str]:
        """What is in the state and runtime directories, without the output of warm interpreters."""
        found = set()
        for name in ("run", "run-spawner", "state"):
            paths = (path for path in (self.root / name).rglob("*") if not path.name.startswith(WARM_PREFIX))
            found |= {str(path.relative_to(self.root)) for path in paths}
        return {path for path in found if not path.startswith("run-spawner/records/")}

    def directories(self) -> list[str]:
        """Those of runs of the pool."""
        return sorted(str(path) for path in self.tmp.glob("runnerd-*"))

    def records(self) -> list[str]:
        """The spawner's records, without those of warm interpreters."""
        directory = self.root / "run-spawner" / "records"
        names = os.listdir(directory) if directory.exists() else []
        return sorted(name for name in names if not name.startswith(WARM_PREFIX))

    def outputs(self) -> list[str]:
        return sorted(os.listdir(self.root / "log" / "runs"))

    def journal(self) -> dict[str, str]:
        """Every run in the journal with its phase. Only while a daemon has it open: a last reader would tidy it up."""
        with self._journal() as db:
            return dict(db.execute("SELECT id, phase FROM runs").fetchall())

    def transitions(self, run_id: str) -> list[str]:
        with self._journal() as db:
            rows = db.execute("SELECT at, phase, event FROM transitions WHERE run_id = ? ORDER BY rowid", (run_id,))
            return [" ".join(row) for row in rows]

    @contextlib.contextmanager
    def _journal(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(f"file:{self.root / 'state' / 'journal.db'}?mode=ro", uri=True, timeout=30)
        try:
            yield db
        finally:
            db.close()

    def close(self) -> None:
        """SIGCONT first: a stopped daemon would not hear anything."""
        self.plan({})
        self.send(signal.SIGCONT)
        super().close()
