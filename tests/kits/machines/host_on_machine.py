"""A machine as its administrator uses it: apt, systemctl, journalctl, runnerctl, and the Prefect API in it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from tests.kits.machines.commanded import HERE, Said
from tests.kits.machines.machine import Machine

API = "http://127.0.0.1:4200/api"
MAIN = """
    api: {url: "http://127.0.0.1:4200/api", poll_interval: 1s}
    stop: {drain_timeout: 2s, then: cancel}
    run: {python: /opt/prefect/bin/python, working_directory: /opt/flows, stop_timeout: 5s}
"""
FLOWS = ("waits", "naps", "ignores", "speaks", "eats", "crashes")
_ASK = """
import json, sys, time, urllib.error, urllib.request
method, url, body = sys.argv[1:]
headers = {"content-type": "application/json"}
request = urllib.request.Request(url, method=method, data=body.encode() or None, headers=headers)
for left in reversed(range(100)):
    try:
        print(urllib.request.urlopen(request, timeout=100).read().decode())
        break
    except urllib.error.HTTPError as error:
        if error.code != 503 or not left:  # SQLite servers are busy now and then
            raise
    time.sleep(0.1)
"""


def deployments(*names: str) -> str:
    """A drop-in with these flows, each a deployment of its own name."""
    lines = [f"  - {{name: {name}, entrypoint: 'machine_flows.py:{name}'}}" for name in names]
    return "\n".join(["deployments:", *lines, ""])


class MachineHost:
    """Invariant: what a test changes of the configuration it puts back with `configure`."""

    def __init__(self, *, machine: Machine, suite: str) -> None:
        self.machine = machine
        self.suite = suite
        self.run = machine.run
        self.sh = machine.sh
        self.until = machine.until

    # --- putting it together --------------------------------------------------------------------------------------

    def install(self, deb: Path | str, *options: str) -> str:
        """apt install, as an administrator would; what it said."""
        if isinstance(deb, Path) and deb.parent.name != "dist":
            self.machine.put(deb, f"/tmp/{deb.name}")
            deb = f"/tmp/{deb.name}"
        path = f"/opt/dist/{deb.name}" if isinstance(deb, Path) else deb
        said = self.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", *options, path)
        return said.out + said.err

    def serve_prefect(self) -> None:
        """The Prefect server that the package has a unit for."""
        self.run("systemctl", "start", "runnerd-server")
        self.until(self._api_answers, "the Prefect server answers")

    def _api_answers(self) -> bool:
        return self.ask("GET", "/health", check=False).status == 0

    def configure(self, main: str = MAIN, **drop_ins: str) -> None:
        """Have exactly this configuration, in force."""
        wanted = drop_ins or {"flows": deployments(*FLOWS)}
        self.machine.write("/opt/flows/machine_flows.py", (HERE / "machine_flows.py").read_text())
        self.machine.write("/etc/runnerd/runnerd.yaml", textwrap.dedent(main))
        for name, text in wanted.items():
            self.machine.write(f"/etc/runnerd/conf.d/{name}.yaml", text)
        # Only now: runnerd.path has every change taken at once, and what vanishes for a moment is paused.
        kept = " ".join(f"! -name {name}.yaml" for name in wanted)
        self.sh(f"find /etc/runnerd/conf.d -name '*.yaml' {kept} -delete; rm -f /tmp/go /tmp/ignoring")
        self.sh("systemctl reset-failed; systemctl restart runnerd")
        self.until(lambda: self._all_ready(), "every deployment is registered")

    def _all_ready(self) -> bool:
        return all(one["state"] == "ready" for one in self.status()["deployments"])

    # --- asking ---------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, *, check: bool = True) -> Said:
        text = "" if body is None else json.dumps(body)
        return self.run("python3", "-c", _ASK, method, API + path, text, check=check)

    def runnerctl(self, *argv: str, check: bool = True) -> Said:
        return self.run("runnerctl", *argv, check=check)

    def status(self) -> Any:
        return json.loads(self.runnerctl("status", "--json").out)

    def show(self, unit: str, what: str) -> str:
        return self.run("systemctl", "show", "-P", what, unit).out.strip()

    def pid(self, unit: str = "runnerd") -> int:
        return int(self.show(unit, "MainPID"))

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        said = self.run("journalctl", "--no-pager", "-o", "json", *matches)
        return [json.loads(line) for line in said.out.splitlines()]

    # --- runs -----------------------------------------------------------------------------------------------------

    def begin(self, deployment: str, *options: str) -> str:
        """Create a run and wait until its process is there; its id."""
        run_id = self.create(deployment, *options)
        self.until(lambda: self.found(run_id).get("pid"), f"a run of {deployment} starts")
        return run_id

    def create(self, deployment: str, *options: str) -> str:
        made: str = json.loads(self.runnerctl("run", deployment, "--json", *options).out)["id"]
        return made

    def found(self, run_id: str) -> dict[str, Any]:
        """The run by `runnerctl status`."""
        said = self.runnerctl("status", run_id, "--json", check=False)
        document: dict[str, Any] = json.loads(said.out) if said.status == 0 else {}
        return document

    def state(self, run_id: str) -> dict[str, Any]:
        """The run's state in the API."""
        state: dict[str, Any] = json.loads(self.ask("GET", f"/flow_runs/{run_id}").out)["state"]
        return state

    def ends(self, run_id: str, state: str) -> dict[str, Any]:
        """Wait until the API has the run's end, which must be this one."""
        final = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")
        self.until(lambda: self.state(run_id)["name"] in final, f"the run ends as {state}")
        found = self.state(run_id)
        assert found["name"] == state, found
        return found

    def alive(self, pid: int) -> bool:
        return self.run("test", "-e", f"/proc/{pid}", check=False).status == 0

    def last_words(self) -> str:
        return self.run("journalctl", "--no-pager", "-n", "80", check=False).out
