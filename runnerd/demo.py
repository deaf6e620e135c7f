"""`runnerd demo`: a server, runnerd and three flows in a scratch directory, and the truth from the API at the end.

Invariants: it goes through the real programs only; it ends with status 0 only if the API says that every flow ended
as it should; it leaves nothing running and nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from runnerd.core.units import format_duration

_LIMIT_S = 300.0
_EXAMPLES = ("etc/runnerd", "/usr/share/doc/runnerd/examples")
_SOCKET_PATH_MAX = 100  # a Unix socket's path ends at 107 bytes


class DemoError(Exception):
    """The demo did not go as it should; the message says where."""


def run_demo(*, examples: str | None = None) -> int:
    """Run the tour; its exit status."""
    began = time.monotonic()
    try:
        with _scratch() as scratch:
            Demo(scratch=scratch, examples=_find_examples(examples)).run()
    except DemoError as error:
        print(f"\nrunnerd demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nrunnerd demo: interrupted; everything it started was stopped", file=sys.stderr)
        return 130
    took = format_duration(time.monotonic() - began, units=2)
    print(f"\nAll three ended as they should, and nothing is left behind ({took}).")
    return 0


def _find_examples(chosen: str | None) -> str:
    for path in (chosen,) if chosen else _EXAMPLES:
        if os.path.isdir(os.path.join(path, "conf.d")):
            return os.path.abspath(path)
    raise DemoError(f"no examples in {chosen or ' or '.join(_EXAMPLES)}; run it in a checkout, or give --examples DIR")


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A directory below this one, because a demo should not litter; elsewhere only if a socket would not fit."""
    here = os.path.join(os.getcwd(), ".demo")
    longest = os.path.join(here, "runnerd-12345678", "run-spawner", "spawner.sock")
    made_here = len(longest) < _SOCKET_PATH_MAX
    if made_here:
        os.makedirs(here, exist_ok=True)
    path = tempfile.mkdtemp(prefix="runnerd-", dir=here if made_here else None)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if made_here:
            with contextlib.suppress(OSError):
                os.rmdir(here)


class Demo:
    """One tour; `run` raises DemoError where it ends early."""

    def __init__(self, *, scratch: str, examples: str) -> None:
        self._scratch = scratch
        self._examples = examples
        self._socket = os.path.join(scratch, "run", "control.sock")
        self._log = os.path.join(scratch, "runnerd.log")

    def run(self) -> None:
        self._say("Writing a configuration: the examples, with a private Prefect server (api.url: embedded)")
        self._configure()
        self._say("Starting runnerd; the first start of a server takes a while")
        daemon = self._start()
        try:
            self._tour(daemon)
        except DemoError:
            sys.stderr.write(self._tail())
            raise
        finally:
            self._stop(daemon)

    def _tour(self, daemon: subprocess.Popen[bytes]) -> None:
        url = self._wait(daemon, "the server to answer", self._api_url)
        self._wait(daemon, "the deployments to be registered", self._all_registered)
        self._ctl("deployments")
        self._say("A flow on request, with its output, until it ends")
        self._ctl("run", "on-demand", "-p", "rows=3", "--watch", "--name", "demo-report")
        self._say("A flow that would sleep for ten minutes; it is cancelled once it runs")
        self._ctl("run", "patient", "--name", "demo-nap")
        self._wait(daemon, "the sleeper to run", lambda: self._state(url, "demo-nap") == "RUNNING")
        self._ctl("cancel", "demo-nap", "--wait")
        self._say("A flow on a schedule of five seconds: waiting until one of its runs is done")
        scheduled = self._wait(daemon, "a scheduled run to complete", lambda: self._completed_heartbeat(url))
        self._ctl("status")
        self._ctl("runs", "--all")
        self._say("What the API says")
        wanted = {"demo-report": "COMPLETED", "demo-nap": "CANCELLED", scheduled: "COMPLETED"}
        found = {name: self._state(url, name) for name in wanted}
        for name, state in found.items():
            print(f"  {name}: {state}")
        if found != wanted:
            raise DemoError(f"the API says {found}, and it should say {wanted}")

    # --- the daemon -----------------------------------------------------------------------------------------------

    def _configure(self) -> None:
        config = os.path.join(self._scratch, "config")
        shutil.copytree(os.path.join(self._examples, "conf.d"), os.path.join(config, "conf.d"))
        shutil.copytree(os.path.join(self._examples, "flows"), os.path.join(config, "flows"))
        with open(os.path.join(config, "runnerd.yaml"), "w", encoding="utf-8") as file:
            file.write("name: demo\napi: {url: embedded, poll_interval: 2s}\nstop: {drain_timeout: 0s}\n")
            # By default Prefect makes a directory in the home of the user.
            home = os.path.join(self._scratch, "prefect-home")
            user = ", user: root" if os.geteuid() == 0 else ""  # a demo by root has no other user
            file.write(f"run: {{environment: {{PREFECT_HOME: {json.dumps(home)}}}{user}}}\n")

    def _start(self) -> subprocess.Popen[bytes]:
        directories = {"--config": "config", "--runtime-dir": "run", "--state-dir": "state", "--log-dir": "log"}
        argv = [sys.executable, "-m", "runnerd"]
        for flag, name in directories.items():
            argv += [flag, os.path.join(self._scratch, name)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
        environment |= {"RUNNERD_FLOW_USERS": "root"} if os.geteuid() == 0 else {}
        with open(self._log, "wb") as log:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _stop(self, daemon: subprocess.Popen[bytes]) -> None:
        self._say("Stopping runnerd")
        daemon.terminate()
        try:
            daemon.wait(timeout=90)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            raise DemoError("runnerd did not stop within 90 s") from None

    def _tail(self) -> str:
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-30:])

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _wait(self, daemon: subprocess.Popen[bytes], what: str, check: Callable[[], Any]) -> Any:
        """Call `check` until it returns a true value, and return that; print a dot per second. Raises DemoError."""
        print(f"  waiting for {what} ", end="", flush=True)
        until = time.monotonic() + _LIMIT_S
        while time.monotonic() < until:
            found = check()
            if found:
                print(" done")
                return found
            if daemon.poll() is not None:
                raise DemoError(f"runnerd ended with status {daemon.returncode} while waiting for {what}")
            print(".", end="", flush=True)
            time.sleep(1)
        raise DemoError(f"waited {format_duration(_LIMIT_S)} for {what}")

    def _api_url(self) -> str | None:
        status = self._status()
        return str(status["api"]["url"]) if status and status["api"]["state"] == "ok" else None

    def _all_registered(self) -> bool:
        status = self._status()
        if status is None:
            return False
        for problem in status["problems"]:
            raise DemoError(problem["message"])
        return bool(status["deployments"]) and all(one["state"] == "ready" for one in status["deployments"])

    def _status(self) -> Any:
        argv = [sys.executable, "-m", "runnerd.cli", "--socket", self._socket, "status", "--json"]
        asked = subprocess.run(argv, capture_output=True, text=True, check=False)
        return json.loads(asked.stdout) if asked.returncode == 0 else None

    def _ctl(self, *words: str) -> None:
        print(f"\n$ runnerctl {' '.join(words)}", flush=True)
        argv = [sys.executable, "-m", "runnerd.cli", "--socket", self._socket, *words]
        status = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode
        if status != 0:
            raise DemoError(f"runnerctl {words[0]} ended with status {status}")

    def _state(self, url: str, name: str) -> str | None:
        found = self._filter(url, {"name": {"any_": [name]}})
        return str(found[0]["state"]["type"]) if found else None

    def _completed_heartbeat(self, url: str) -> str | None:
        wanted = {"tags": {"all_": ["example", "auto-scheduled"]}, "state": {"type": {"any_": ["COMPLETED"]}}}
        found = self._filter(url, wanted)
        return str(found[0]["name"]) if found else None

    def _filter(self, url: str, flow_runs: dict[str, Any]) -> list[Any]:
        """Read flow runs from the API, not from runnerd, whose own view would prove less."""
        body = json.dumps({"flow_runs": flow_runs, "limit": 1}).encode()
        request = urllib.request.Request(
            f"{url}/flow_runs/filter", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                found: list[Any] = json.load(answer)
        except (OSError, urllib.error.URLError):
            return []  # a busy SQLite server answers 503 now and then; the caller retries
        return found

    def _say(self, text: str) -> None:
        print(f"\n== {text}", flush=True)
