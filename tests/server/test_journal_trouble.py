"""A whole host whose journal is damaged, cannot be written, or has no room left."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import Host, alive, eventually
from tests.kits.prefect_servers import PrefectServer

DROP_IN = """
deployments:
  - {name: greet, entrypoint: "flows.py:greet"}
  - {name: sleep, entrypoint: "flows.py:sleep", parameters: {seconds: 600}}
"""
Make = Callable[[PrefectServer], Host]


@pytest.fixture
def make() -> Iterator[Make]:
    hosts: list[Host] = []

    def one(server: PrefectServer) -> Host:
        host = Host(url=server.url, python=server.python)
        hosts.append(host)
        host.drop_in("10-test.yaml", DROP_IN)
        return host

    yield one
    for host in hosts:
        host.close()


def mount(*arguments: str) -> int:
    return subprocess.run(["mount", *arguments], stderr=subprocess.DEVNULL, check=False).returncode


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB. To be asked for before `make`, because fixtures end in the other order."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or mount("-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(disk)) != 0:
        pytest.skip("mounting a file system takes root, outside of an unprivileged container")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def problems(host: Host) -> str:
    return "\n".join(problem["message"] for problem in host.json("status")["problems"])


def journal_check(host: Host) -> Any:
    return next(check for check in host.json("health")["checks"] if check["name"] == "journal")


def restart_with(host: Host, damage: Callable[[Path], None]) -> None:
    host.kill()
    damage(host.root / "state" / "journal.db")
    host.start()


# --- damage -------------------------------------------------------------------------------------------------------


def garbage(path: Path) -> None:
    for name in (path, Path(f"{path}-wal")):
        name.write_bytes(b"this is no database, whatever its name says " * 500)


def test_what_runs_is_taken_over_when_the_journal_is_lost(prefect3: PrefectServer, make: Make) -> None:
    host = make(prefect3)
    host.start()
    host.registered("greet", "sleep")
    short, long = host.run_now("sleep", seconds=20), host.run_now("sleep")
    pids = [host.running(run_id)["pid"] for run_id in (short, long)]
    restart_with(host, garbage)
    (aside,) = (host.root / "state").glob("journal.db.corrupt-*[0-9]")
    assert aside.read_bytes().startswith(b"this is no database")
    assert str(aside) in problems(host)
    assert host.said().count("the journal was damaged; moved the file aside") == 1
    assert journal_check(host)["ok"] is True
    assert {run["id"] for run in host.json("runs")} == {short, long}
    assert host.ended(short)["api_state"] == "COMPLETED"
    assert alive(pids[1])
    assert host.ctl("cancel", long, "--wait").returncode == 0
    assert not alive(pids[1])
    assert host.api.history(long)[-1] == "CANCELLED"
    host.registered("greet")
    assert host.ended(host.run_now("greet"))["api_state"] == "COMPLETED"
    restart_with(host, lambda path: None)
    assert "damaged" not in problems(host)
    assert host.document(short)["api_state"] == "COMPLETED"


def one_page(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:  # closing it copies the log into the file
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'transitions'").fetchone()
    with open(path, "r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


def test_a_broken_page_costs_no_run_its_name(prefect3: PrefectServer, make: Make) -> None:
    host = make(prefect3)
    host.start()
    host.registered("greet", "sleep")
    run_id = host.run_now("sleep")
    pid = host.running(run_id)["pid"]
    restart_with(host, one_page)
    assert "the journal was damaged" in problems(host)
    document = host.document(run_id)
    assert (document["deployment"], document["pid"], document["phase"]) == ("sleep", pid, "running")
    assert host.ctl("cancel", run_id, "--wait").returncode == 0
    assert host.api.state(run_id) == "CANCELLED"


# --- no room ------------------------------------------------------------------------------------------------------


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return filler


def test_a_full_disk(prefect3: PrefectServer, disk: Path, make: Make) -> None:
    host = make(prefect3)
    (host.root / "state").symlink_to(disk)
    host.start()
    host.registered("greet", "sleep")
    short, long = host.run_now("sleep", seconds=12), host.run_now("sleep")
    pids = [host.running(run_id)["pid"] for run_id in (short, long)]
    filler = fill(disk)
    waiting = host.run_now("greet")
    eventually(lambda: "make room on its disk; meanwhile no run is claimed" in problems(host), "the problem to be said")
    check = journal_check(host)
    assert (check["ok"], "disk is full" in check["detail"]) == (False, True)
    assert host.ctl("health").returncode == 1
    eventually(lambda: not alive(pids[0]), "the short one to end")
    refused = host.ctl("cancel", long)
    assert refused.returncode == 1
    assert "disk is full" in refused.stderr
    assert host.api.state(waiting) == "SCHEDULED"
    assert host.document(short)["phase"] == "running"
    assert alive(pids[1])
    filler.unlink()
    eventually(lambda: journal_check(host)["ok"], "it to heal by itself")
    assert problems(host) == ""
    assert host.ended(short)["exit"]["words"] == "exited 0"
    assert host.ended(waiting)["api_state"] == "COMPLETED"
    assert host.document(long)["pid"] == pids[1]
    assert host.ctl("cancel", long, "--wait").returncode == 0
    assert host.api.state(long) == "CANCELLED"
    said = host.said()
    assert (said.count("cannot use the journal"), said.count("the journal works again")) == (1, 1)


def test_a_daemon_that_starts_on_a_full_disk(prefect3: PrefectServer, disk: Path, make: Make) -> None:
    """It says why and ends; what runs goes on, and is there for the daemon that finds room."""
    host = make(prefect3)
    (host.root / "state").symlink_to(disk)
    host.start()
    host.registered("sleep")
    run_id = host.run_now("sleep")
    pid = host.running(run_id)["pid"]
    host.signal(15)
    host.kill()
    for name in ("journal.db-shm", "lock"):
        (disk / name).unlink(missing_ok=True)
    filler = fill(disk)
    ended = subprocess.run(host.argv, capture_output=True, text=True, env=host.environ, check=False, timeout=60)
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert "make room" in ended.stderr.splitlines()[-1], ended.stderr
    assert alive(pid)
    filler.unlink()
    host.start()
    assert host.document(run_id)["phase"] == "running"
    assert host.ctl("cancel", run_id, "--wait").returncode == 0


def test_a_directory_that_is_read_only(prefect3: PrefectServer, disk: Path, make: Make) -> None:
    host = make(prefect3)
    (host.root / "state").symlink_to(disk)
    assert mount("-o", "remount,ro", str(disk)) == 0
    ended = subprocess.run(host.argv, capture_output=True, text=True, env=host.environ, check=False, timeout=60)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"cannot write in {host.root}/state: it is mounted read-only" in line
    assert mount("-o", "remount,rw", str(disk)) == 0
    host.start()
    host.registered("sleep")  # an inspection under way outlives the daemon, and works on this disk
