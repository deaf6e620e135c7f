"""runnerd as a contender: the installed copy, with a configuration directory of its own."""

from __future__ import annotations

import http.client
import json
import os
from pathlib import Path
from typing import Any

import psutil

from tests.bench.contenders import MARK, Contender, make_pool
from tests.bench.flow_files import ENTRYPOINT
from tests.bench.rows import POOL, WARM
from tests.bench.waiting import NotReached
from tests.kits.bench import BIN, spawner_of
from tests.kits.daemon import FLOWS_AS_ROOT
from tests.kits.measuring import Control

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR")


class RunnerdHost(Contender):
    """Cold, warm, or serving a pool. Its grace is short, so that nobody waits for it."""

    grace_s = 2.0

    def prepare(self) -> None:
        (self.directory / "etc" / "conf.d").mkdir(parents=True)
        (self.directory / "etc" / "runnerd.yaml").write_text(self._main())
        if self.who == POOL:
            make_pool(self.asker, self.name, self.names(), self.directory)
            declared: dict[str, Any] = {"pools": [{"name": self.name}]}
        else:
            declared = {"deployments": [{"name": name, "entrypoint": ENTRYPOINT} for name in self.names()]}
        (self.directory / "etc" / "conf.d" / "10-bench.yaml").write_text(json.dumps(declared, indent=1))

    def _main(self) -> str:
        """The host's configuration: YAML that is JSON."""
        poll = {} if self.setting.poll_s is None else {"poll_interval": f"{self.setting.poll_s:g}s"}
        home = str(self.directory / "home")
        flow_environment = {"PREFECT_HOME": home, "DO_NOT_TRACK": "1", MARK: self.mark}  # as those of the others
        run = {
            "python": self.setting.server.python,
            "working_directory": str(self.directory),
            "environment": flow_environment,
            "stop_timeout": f"{self.grace_s:g}s",
            "start": "warm" if self.who == WARM else "cold",
        }
        limits = {"runs": self.setting.limit}
        main = {"name": self.name, "api": {"url": self.setting.url, **poll}, "limits": limits, "run": run}
        return json.dumps(main, indent=1)

    def argv(self) -> list[str]:
        words = {"--config": "etc", "--runtime-dir": "run", "--state-dir": "state", "--log-dir": "output"}
        return [str(BIN / "runnerd"), *(w for key, name in words.items() for w in (key, str(self.directory / name)))]

    def environment(self) -> dict[str, str]:
        passed = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        return {**passed, **FLOWS_AS_ROOT, "HOME": str(self.directory), MARK: self.mark}

    def ready(self) -> bool:
        status = self._ask("/v1/status")
        if status is None or spawner_of(self.directory) is None:
            return False
        if self.who == POOL:
            return [one["state"] for one in status["pools"]] == ["ready"]
        states = [one["state"] for one in status["deployments"]]
        if "invalid" in states:
            raise NotReached(f"{self.name} refuses its deployment: {status['problems']}")
        return states.count("ready") == self.setting.deployments

    def roots(self) -> list[psutil.Process]:
        spawner = spawner_of(self.directory)
        return [*super().roots(), *([spawner] if spawner is not None else [])]

    def started_how(self, run_id: str) -> str:
        document = self._ask(f"/v1/runs/{run_id}")
        return str((document or {}).get("start"))

    def _ask(self, path: str) -> Any:
        """A document of the control socket; None while it does not answer."""
        socket: Path = self.directory / "run" / "control.sock"
        try:
            return Control(socket).call("GET", path)
        except (OSError, http.client.HTTPException, ValueError):
            return None
