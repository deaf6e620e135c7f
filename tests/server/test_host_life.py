"""The life of a host: restarts, stops, systemd's notifications, users, and what administrators write wrongly."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kits.daemon import Host, alive, eventually
from tests.kits.prefect_servers import PrefectServer

DROP_IN = """
deployments:
  - {name: greet, entrypoint: "flows.py:greet"}
  - {name: sleep, entrypoint: "flows.py:sleep", parameters: {seconds: 600}}
  - {name: stubborn, entrypoint: "flows.py:stubborn", run: {stop_timeout: 600s}}
"""

Make = Callable[..., Host]


@pytest.fixture
def make() -> Iterator[Make]:
    """Hosts that are gone at the end of the test."""
    hosts: list[Host] = []

    def one(server: PrefectServer, drop_in: str = DROP_IN, **environ: str) -> Host:
        host = Host(url=server.url, python=server.python, environ=environ)
        hosts.append(host)
        if drop_in:
            host.drop_in("10-test.yaml", drop_in)
        return host

    yield one
    for host in hosts:
        host.close()


class NotifySocket:
    """systemd's side of NOTIFY_SOCKET: it reads all the time, as systemd does."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while (message := self._socket.recv(65536)) != b"end":
            self.said.append(message.decode())

    def heard(self, wanted: str) -> bool:
        return any(wanted in message for message in list(self.said))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as us:
            us.sendto(b"end", self._socket.getsockname())
        self._reader.join()
        self._socket.close()


def test_sigkill_of_the_daemon_touches_no_flow_and_loses_none(
    prefect: PrefectServer, make: Make, tmp_path: Path
) -> None:
    host = make(prefect)
    host.start()
    host.registered("sleep")
    mark = tmp_path / "mark"
    short, long = host.run_now("sleep", seconds=8, mark=str(mark)), host.run_now("sleep")
    pids = [host.running(run_id)["pid"] for run_id in (short, long)]
    host.kill()
    assert all(alive(pid) for pid in pids)
    eventually(lambda: not alive(pids[0]), "the short one to end with nobody watching")
    host.start()
    assert host.ended(short)["exit"]["words"] == "exited 0"
    assert host.api.state(short) == "COMPLETED"
    assert host.document(long)["phase"] == "running"
    assert host.ctl("cancel", long, "--wait").returncode == 0
    assert host.api.state(long) == "CANCELLED"
    assert len(mark.read_text().splitlines()) == 1


def test_a_stop_drains_and_then_ends_what_is_left(prefect: PrefectServer, make: Make) -> None:
    host = make(prefect)
    host.drop_in("90-stop.yaml", "stop: {drain_timeout: 3s, then: crash}")
    host.start()
    host.registered("sleep")
    run_id = host.run_now("sleep")
    pid = host.running(run_id)["pid"]
    host.signal(signal.SIGTERM)
    assert host.wait() == 0
    assert not alive(pid)
    state = host.api.run(run_id)["state"]
    assert state["type"] == "CRASHED"
    assert not host.left()


def test_a_second_signal_does_not_wait_for_the_drain(prefect3: PrefectServer, make: Make) -> None:
    host = make(prefect3)
    host.drop_in("90-stop.yaml", "stop: {drain_timeout: 1h}")
    host.start()
    host.registered("sleep")
    run_id = host.run_now("sleep")
    host.running(run_id)
    host.signal(signal.SIGINT)
    eventually(lambda: host.json("status")["draining"], "the drain to begin")
    assert host.document(run_id)["phase"] == "running"
    host.signal(signal.SIGINT)
    assert host.wait() == 0
    assert host.api.state(run_id) == "CANCELLED"


def test_a_third_signal_does_not_wait_for_a_stubborn_flow(prefect3: PrefectServer, make: Make, tmp_path: Path) -> None:
    host = make(prefect3)
    host.drop_in("90-stop.yaml", "stop: {drain_timeout: 0s}")
    host.start()
    host.registered("stubborn")
    mark = tmp_path / "stubborn"
    run_id = host.run_now("stubborn", mark=str(mark))
    pid = int(eventually(lambda: mark.exists() and mark.read_text(), "the stubborn one"))
    host.signal(signal.SIGTERM)
    eventually(lambda: host.document(run_id)["phase"] == "stopping", "the eviction")
    host.signal(signal.SIGTERM)
    assert host.wait() == 0
    assert not alive(pid)


def test_systemd_is_told_and_a_restart_hands_over(prefect3: PrefectServer, make: Make, tmp_path: Path) -> None:
    notify = NotifySocket(tmp_path / "notify")
    host = make(prefect3, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="2000000")
    try:
        host.start()
        eventually(lambda: notify.heard("READY=1"), "READY=1")
        eventually(lambda: notify.heard("STATUS=0 running of 10, API ok"), "the status line")
        eventually(lambda: notify.said.count("WATCHDOG=1") >= 2, "the watchdog fed")
        notify.said.clear()
        host.signal(signal.SIGHUP)
        eventually(lambda: notify.heard("READY=1"), "READY=1 after the reload")
        reloading = next(m for m in notify.said if m.startswith("RELOADING=1"))
        assert "\nMONOTONIC_USEC=" in reloading
        host.registered("sleep")
        run_id = host.run_now("sleep")
        pid = host.running(run_id)["pid"]
        # Not a unit of a running systemd, so no job is found: the daemon hands over rather than end anything.
        host.signal(signal.SIGTERM)
        assert host.wait() == 75  # which is how systemd knows that a successor is wanted
        assert notify.heard("STOPPING=1")
        assert alive(pid)
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environ and b"WATCHDOG" not in environ
        host.start()
        assert host.document(run_id)["phase"] == "running"
        assert host.ctl("cancel", run_id, "--wait").returncode == 0
    finally:
        notify.close()


def test_the_daemon_is_ready_while_the_api_is_away(make: Make) -> None:
    away = PrefectServer(
        url="http://127.0.0.1:9/api", python="/usr/bin/python3", major=3, version="3.9.1", environment={}
    )
    host = make(away)
    host.start()
    status = host.json("status")
    assert status["api"]["state"] == "unreachable"
    assert [one["state"] for one in status["deployments"]] == ["unregistered"] * 3
    assert host.ctl("health").returncode == 1
    asked = host.ctl("run", "greet")
    assert asked.returncode == 1
    assert len(asked.stderr.splitlines()) == 1
    assert host.said().count("unreachable") == 1


def open_interpreter(of: str) -> tuple[str, str]:
    """An interpreter that `nobody` may execute, and the PYTHONPATH that gives it the Prefect of `of`."""
    packages = next(Path(of).parents[1].glob("lib/python3*/site-packages"))
    for python, path in ((of, ""), ("/usr/bin/python3", str(packages))):
        environ = {"PYTHONPATH": path, "HOME": "/tmp", "PREFECT_HOME": "/tmp/no-prefect-home", "PATH": os.defpath}
        argv = [python, "-c", "import prefect"]
        try:
            tried = subprocess.run(argv, user="nobody", cwd="/", env=environ, capture_output=True, check=False)
        except OSError:
            continue
        if tried.returncode == 0:
            return python, path
    pytest.skip("no interpreter with Prefect on this host that the user nobody may execute")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run flows as somebody else")
def test_a_run_is_who_and_where_its_file_says(prefect: PrefectServer, make: Make) -> None:
    python, path = open_interpreter(prefect.python)
    host = make(prefect, drop_in="")
    home = host.root / "home"
    home.mkdir()
    os.chmod(home, 0o777)
    host.drop_in(
        "10-who.yaml",
        f"""
deployments:
  - name: who
    entrypoint: {host.config}/flows.py:who
    run:
      user: nobody
      working_directory: {home}
      umask: "0027"
      nice: 5
      python: {python}
      environment: {{COLOUR: blue, PREFECT_HOME: "{home}", HOME: "{home}", PYTHONPATH: "{path}"}}
""",
    )
    host.environ["SECRET_OF_THE_DAEMON"] = "x"
    host.start()
    host.registered("who")
    run_id = host.run_now("who")
    assert host.ended(run_id)["api_state"] == "COMPLETED", host.ctl("logs", run_id).stdout
    assert host.document(run_id)["user"] == "nobody"
    output = host.ctl("logs", run_id).stdout
    assert f"uid=65534 umask=27 nice=5 cwd={home}" in output
    assert "COLOUR" in output
    assert "SECRET_OF_THE_DAEMON" not in output


def test_once_polls_once_and_ends_by_itself(prefect3: PrefectServer, make: Make) -> None:
    host = make(prefect3)
    host.start()
    host.registered("greet")
    host.signal(signal.SIGTERM)
    assert host.wait() == 0
    deployment = host.api.deployment("greet", "greet")
    body = {"parameters": {}, "state": {"type": "SCHEDULED"}}
    made = host.api.call("POST", f"/deployments/{deployment['id']}/create_flow_run", body)
    host.start("--once")
    assert host.wait() == 0
    assert host.api.state(made["id"]) == "COMPLETED"


def test_a_broken_drop_in_keeps_its_last_good_version_over_a_restart(prefect3: PrefectServer, make: Make) -> None:
    host = make(prefect3)
    host.start()
    host.registered("greet")
    host.signal(signal.SIGTERM)
    assert host.wait() == 0
    host.drop_in("10-test.yaml", "deployments: [{name: greet\n")
    host.log.write_bytes(b"")
    host.start()
    status = host.json("status")
    assert {one["state"] for one in status["deployments"]} == {"invalid"}
    assert any("10-test.yaml:" in f"{p['file']}:{p['line']}" for p in status["problems"])
    assert host.ended(host.run_now("greet"))["api_state"] == "COMPLETED"
    assert host.api.deployment("greet", "greet")["paused"] is False


def test_the_settings_of_a_broken_drop_in_stay_in_force_over_a_restart(make: Make) -> None:
    away = PrefectServer(
        url="http://127.0.0.1:9/api", python="/usr/bin/python3", major=3, version="3.9.1", environment={}
    )
    host = make(away)
    host.drop_in("00-host.yaml", "limits: {runs: 3}\n")
    for text in ("limits: {runs: 3}\n", "limits: {runs: [\n"):
        host.drop_in("00-host.yaml", text)
        host.start()
        assert host.json("status")["limits"]["runs"]["max"] == 3
        host.signal(signal.SIGTERM)
        assert host.wait() == 0


def test_a_second_daemon_is_refused(prefect3: PrefectServer, make: Make) -> None:
    host = make(prefect3)
    host.start()
    second = subprocess.run(host.argv, capture_output=True, text=True, env=host.environ, check=False, timeout=60)
    assert second.returncode == 1
    assert "another runnerd" in second.stderr
    assert len(second.stderr.splitlines()) == 1


def test_a_broken_main_file_is_exit_status_78(make: Make) -> None:
    away = PrefectServer(
        url="http://127.0.0.1:9/api", python="/usr/bin/python3", major=3, version="3.9.1", environment={}
    )
    host = make(away)
    host.write_main("api: {url: 'http://127.0.0.1:9/api', pol_interval: 5s}\nlimits: {runs: many}\n")
    ended = subprocess.run(host.argv, capture_output=True, text=True, env=host.environ, check=False, timeout=60)
    assert ended.returncode == 78
    lines = ended.stderr.splitlines()
    assert len(lines) == 2
    assert "runnerd.yaml:1:38: " in lines[0] and "poll_interval" in lines[0]
    assert "runnerd.yaml:2:16: " in lines[1]
    assert not (host.root / "state").exists()


def test_a_python_that_does_not_exist_concerns_only_its_deployment(prefect3: PrefectServer, make: Make) -> None:
    host = make(prefect3)
    bad = host.drop_in(
        "20-bad.yaml",
        "deployments: [{name: bad, entrypoint: 'flows.py:greet', run: {python: /no/such/python, user: nosuchuser}}]",
    )
    host.start()
    host.registered("greet")
    problems = [problem["message"] for problem in host.json("status")["problems"]]
    assert any("/no/such/python" in message for message in problems)
    assert any("nosuchuser" in message for message in problems)
    asked = host.ctl("config", "check", str(host.config))
    assert asked.returncode == 1
    assert str(bad) in asked.stderr + asked.stdout
    assert "Traceback" not in asked.stderr + asked.stdout + host.said()
