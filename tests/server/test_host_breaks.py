"""What a whole host comes back from: its spawner is killed, its daemon dies in mid-cancel, the machine reboots."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.kits.daemon import FLOWS_AS_ROOT, Host, alive, eventually, serving
from tests.kits.prefect_servers import PrefectServer

DEPLOYMENTS = """
deployments:
  - {name: greet, entrypoint: "flows.py:greet", run: {start: cold}}
  - {name: sleep, entrypoint: "flows.py:sleep"}
  - {name: bounded, entrypoint: "flows.py:sleep", run: {runtime_max: 20s}}
  - {name: stubborn, entrypoint: "flows.py:stubborn", run: {stop_timeout: 8s}}
  - {name: escapes, entrypoint: "flows.py:escapes"}
"""
NAMES = ("greet", "sleep", "bounded", "stubborn", "escapes")


@pytest.fixture(scope="module", params=["prefect2", "prefect3"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    server: PrefectServer = request.getfixturevalue(request.param)
    host = Host(url=server.url, python=server.python)
    with serving(host, DEPLOYMENTS, *NAMES) as host:
        yield host


def spawners_of(host: Host) -> list[int]:
    """The pids of the host's spawners: one, or none while it is being replaced."""
    found = []
    for pid in host.left():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "spawner/__main__.py" in " ".join(psutil.Process(pid).cmdline()):
                found.append(pid)
    return found


def spawner_of(host: Host) -> int:
    (pid,) = spawners_of(host)
    return pid


def begun(host: Host, deployment: str, mark: Path) -> str:
    """A run whose code has begun and left its mark."""
    run_id = host.run_now(deployment, mark=str(mark))
    eventually(mark.exists, f"{deployment} to begin", log=host.said)
    return run_id


# --- the spawner ------------------------------------------------------------------------------------------------


def test_sigkill_of_the_spawner_touches_no_flow(host: Host, tmp_path: Path) -> None:
    """The next one takes them over: who ends by himself is what the API says, who is cancelled is ended."""
    ends = host.run_now("sleep", seconds=30, mark=str(tmp_path / "ends"))  # a busy machine starts the other late
    stays = begun(host, "sleep", tmp_path / "stays")
    eventually((tmp_path / "ends").exists, "the other to begin")
    pids = {run_id: host.document(run_id)["pid"] for run_id in (ends, stays)}
    before = spawner_of(host)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: set(spawners_of(host)) - {before}, f"another spawner:\n{host.said()}")
    assert alive(pids[stays])
    document = host.ended(ends)
    assert (document["api_state"], document["exit"]["words"]) == ("COMPLETED", "ended, exit status unknown")
    assert host.ctl("cancel", stays, "--wait").returncode == 0
    assert host.document(stays)["api_state"] == "CANCELLED"
    assert not alive(pids[stays])
    assert host.json("status")["limits"]["runs"]["used"] == 0
    assert (tmp_path / "ends").read_text().count("\n") == 1, "its code ran once"


def test_a_spawner_that_has_a_unit_of_its_own_is_waited_for(prefect3: PrefectServer, tmp_path: Path) -> None:
    """As under systemd, which starts it again: the daemon starts none, says what it waits for, and takes over."""
    home = Path(tempfile.mkdtemp(prefix="runnerd-"))
    socket = home / "spawner.sock"
    own = [sys.executable, "-m", "runnerd.spawner", "--socket", str(socket), "--runtime-dir", str(home / "records")]
    own += ["--users", FLOWS_AS_ROOT["RUNNERD_FLOW_USERS"]] if FLOWS_AS_ROOT else []
    spawner = subprocess.Popen(own, stderr=subprocess.DEVNULL)
    host = Host(url=prefect3.url, python=prefect3.python, environ={"RUNNERD_SPAWNER_SOCKET": str(socket)})
    host.drop_in("10-test.yaml", DEPLOYMENTS)
    try:
        host.start()
        host.registered("sleep")
        run_id = begun(host, "sleep", tmp_path / "mark")
        spawner.kill()
        spawner.wait()

        def problems() -> str:
            return " ".join(one["message"] for one in host.json("status")["problems"])

        eventually(lambda: "see systemctl status runnerd-spawner" in problems(), "the problem to be told")
        assert alive(host.document(run_id)["pid"])
        assert host.ctl("cancel", run_id).returncode == 0
        spawner = subprocess.Popen(own, stderr=subprocess.DEVNULL)
        assert host.ended(run_id)["api_state"] == "CANCELLED"
        assert "problems" not in host.ctl("status").stdout
    finally:
        host.close()
        spawner.terminate()
        spawner.wait()
        shutil.rmtree(home)


# --- the daemon, in the middle of something -----------------------------------------------------------------------


def test_a_cancel_that_is_under_way_needs_no_daemon(host: Host, tmp_path: Path) -> None:
    run_id = begun(host, "stubborn", tmp_path / "mark")
    pid = host.document(run_id)["pid"]
    assert host.ctl("cancel", run_id).returncode == 0
    eventually(lambda: host.document(run_id)["phase"] == "stopping", "it to be asked to end")
    host.kill()
    eventually(lambda: not alive(pid), "the flow to be killed after its stop_timeout")
    assert host.api.state(run_id) != "CANCELLED", "nobody is there to tell"
    host.start()
    document = host.ended(run_id)
    assert (document["api_state"], document["exit"]["words"]) == ("CANCELLED", "cancelled; killed by SIGKILL")


def test_a_runtime_max_that_is_reached_needs_no_daemon(host: Host, tmp_path: Path) -> None:
    run_id = host.run_now("bounded", mark=str(tmp_path / "mark"))
    pid = eventually(lambda: host.document(run_id)["pid"], "it to start")
    host.kill()
    eventually(lambda: not alive(pid), "the flow to be ended at its runtime_max")
    host.start()
    document = host.ended(run_id)
    assert document["api_state"] == "FAILED"
    assert document["exit"]["words"].startswith("ran longer than runtime_max 20s")
    assert host.api.run(run_id)["state"]["name"] == "TimedOut"


# --- what gets away -----------------------------------------------------------------------------------------------


def test_daemons_of_a_flow_end_with_it(host: Host, tmp_path: Path) -> None:
    """It leaves by itself, and leaves one that called setsid and one that daemonized properly."""
    mark = tmp_path / "mark"
    run_id = host.run_now("escapes", mark=str(mark))
    assert host.ended(run_id)["api_state"] == "COMPLETED"
    escaped = [int(word) for word in mark.read_text().split()]
    assert len(escaped) == 2
    assert not [pid for pid in escaped if alive(pid)]


def test_daemons_of_a_cancelled_flow_end_with_it(host: Host, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    run_id = host.run_now("escapes", mark=str(mark), stay=True)
    eventually(lambda: mark.exists() and len(mark.read_text().split()) == 2, f"it to fork:\n{host.said()}")
    assert host.ctl("cancel", run_id, "--wait").returncode == 0
    assert not [pid for pid in mark.read_text().split() if alive(int(pid))]


# --- a reboot -----------------------------------------------------------------------------------------------------


def reboot(host: Host, *flows: int) -> None:
    """All that a boot takes with it: every process, what is under /run, and the meaning of pids."""
    host.kill()
    os.kill(spawner_of(host), signal.SIGKILL)
    for pid in flows:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not host.left() and not any(alive(pid) for pid in flows), "everything to be gone")
    here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.closing(sqlite3.connect(host.root / "state" / "journal.db")) as journal, journal:
        journal.execute("UPDATE runs SET record = replace(record, ?, 'an-earlier-boot')", (here,))
    for directory in ("run", "run-spawner"):
        shutil.rmtree(host.root / directory)


def test_a_reboot_settles_what_ran_and_starts_what_had_not_begun(host: Host, tmp_path: Path) -> None:
    ran = begun(host, "sleep", tmp_path / "ran")
    waits = host.run_now("greet")
    pids = [eventually(lambda one=one: host.document(one)["pid"], "it to start") for one in (ran, waits)]
    os.kill(pids[1], signal.SIGSTOP)  # cold, Prefect takes seconds to come to the flow's code: it has not begun
    assert host.api.state(waits) == "PENDING"
    reboot(host, *pids)
    host.start()
    document = host.ended(ran)
    assert (document["api_state"], document["exit"]["words"]) == ("CRASHED", "the host restarted")
    assert host.api.run(ran)["state"]["message"] == "the host restarted"
    assert host.ended(waits)["api_state"] == "COMPLETED"
    assert host.api.history(ran).count("CRASHED") == 1
    assert host.api.history(waits).count("RUNNING") == 1
    assert host.json("status")["limits"]["runs"]["used"] == 0
