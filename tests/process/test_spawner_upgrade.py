"""A spawner of other code than the daemon's is replaced once it is idle, whatever its version says."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.kits.checkout import ROOT
from tests.kits.daemon import Host, alive, eventually, host_at
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json
from tests.kits.spawner import needs_root


@pytest.fixture
def host() -> Iterator[Host]:
    with host_at(FakePrefect(major=3)) as host:
        yield host


def doctor_says(host: Host) -> Json:
    return next(check for check in host.json("doctor")["checks"] if check["name"] == "spawner")


def spawner_of(host: Host) -> psutil.Process:
    (pid,) = (pid for pid in host.left() if any("spawner" in word for word in psutil.Process(pid).cmdline()[:4]))
    return psutil.Process(pid)


def start_older(host: Host) -> int:
    """End the daemon and its spawner, and start one from a copy of the code that is not the same; its pid."""
    spawner = spawner_of(host)
    command = spawner.cmdline()
    host.kill()
    spawner.terminate()
    spawner.wait(60)
    copy = host.root / "older"
    shutil.copytree(ROOT / "runnerd", copy / "runnerd", ignore=shutil.ignore_patterns("__pycache__"))
    with open(copy / "runnerd" / "spawner" / "options.py", "a", encoding="utf-8") as file:
        file.write("# older\n")
    program = next(i for i, word in enumerate(command) if word.endswith("spawner/__main__.py"))
    command[program] = str(copy / "runnerd" / "spawner" / "__main__.py")
    subprocess.run(command, check=True, timeout=60)
    return spawner_of(host).pid


def begin_run(host: Host) -> int:
    """Have the spawner start a process that sleeps; its pid."""
    spec = {"key": "some-run", "attempt": 1, "argv": ["/bin/sleep", "600"], "environment": {}, "own": True}
    spec |= {"working_directory": "/", "output": str(host.root / "log" / "some-run")}
    command = spawner_of(host).cmdline()
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(command[command.index("--socket") + 1])
        link.sendall(json.dumps({"op": "spawn", "id": 7, "spec": spec}).encode() + b"\n")
        for line in link.makefile():
            answer = json.loads(line)
            if answer.get("reply") == 7:
                return int(answer["ok"]["pid"])
    raise AssertionError("no answer")


def test_a_spawner_of_other_code_is_replaced_once_it_is_idle(host: Host) -> None:
    host.start()
    assert doctor_says(host)["state"] == "ok"
    older = start_older(host)
    run = begin_run(host)
    host.start()
    said = doctor_says(host)
    assert (said["state"], "its code (build " in said["detail"]) == ("warning", True), said
    assert spawner_of(host).pid == older, "while it has a run it stays"
    os.kill(run, 9)
    eventually(lambda: not alive(older), f"it to be replaced:\n{host.said()}")
    eventually(lambda: doctor_says(host)["state"] == "ok", "the next one to be the installed one")
    assert "replacing the idle spawner" in host.said()


@needs_root
def test_a_spawner_with_other_users_is_named_and_replaced(host: Host) -> None:
    host.start()
    first, run = spawner_of(host).pid, begin_run(host)
    host.kill()
    host.environ["RUNNERD_FLOW_USERS"] = "root,nobody,daemon"
    host.start()
    words = "starts processes as nobody,root, but RUNNERD_FLOW_USERS of runnerd says daemon,nobody,root"
    assert words in doctor_says(host)["detail"]
    assert words in host.ctl("status").stdout
    os.kill(run, 9)
    eventually(lambda: not alive(first), f"it to be replaced:\n{host.said()}")
    eventually(lambda: doctor_says(host)["state"] == "ok", "the list to be the daemon's")
    assert words not in host.ctl("status").stdout
