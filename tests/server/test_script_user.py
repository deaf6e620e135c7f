"""Scripts through a real daemon and spawner: each is read as its own user; what hangs or fails affects no other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import ANSWER_S, Host, eventually, host_at
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.prefect_servers import ENVS
from tests.server.test_host_life import open_interpreter

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may read scripts as somebody else"),
]

# What it finds about itself is the description of its deployment.
WHO = """
import json, os
from prefect import flow

@flow
def who(): ...

def readable(path):
    try:
        with open(path):
            return True
    except OSError:
        return False

if __name__ == "__main__":
    said = {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "cwd": os.getcwd(), "nice": os.nice(0),
            "secret": readable("SECRET"), "key": [name for name in os.environ if "KEY" in name or "RUNNERD" in name],
            "fds": sorted(os.listdir("/proc/self/fd"))}
    who.serve("who", description=json.dumps(said), limit=3)
"""
HANGS = """
import subprocess, sys, time
from prefect import flow

subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10_000)", "left-behind-by-HANGS"])
time.sleep(10_000)
"""


@pytest.fixture(params=[2, 3])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    fake = FakePrefect(major=request.param)
    with host_at(fake) as host:
        python, path = open_interpreter(str(ENVS / f"prefect{request.param}" / "bin" / "python"))
        home = host.root / "home"
        home.mkdir()
        home.chmod(0o777)
        secret = host.root / "secret"
        secret.write_text("x")
        secret.chmod(0o600)
        environment = {
            "PYTHONPATH": path,
            "PREFECT_HOME": str(home),
            "HOME": str(home),
            "PREFECT_API_KEY": "of-the-run",
        }
        run = {"python": python, "user": "nobody", "environment": environment, "nice": 7}
        (host.config / "who.py").write_text(WHO.replace("SECRET", str(secret)))
        (host.config / "hangs.py").write_text(HANGS.replace("HANGS", host.root.name))
        scripts = [{"path": "hangs.py", "run": {**run, "runtime_max": "20s"}}, {"path": "who.py", "run": run}]
        host.drop_in("a.yaml", json.dumps({"scripts": scripts}))
        host.environ["SECRET_KEY_OF_THE_DAEMON"] = "x"
        host.start()
        yield host


def described(host: Host) -> dict[str, Any]:
    """What the script said when it was read, once it was read."""
    host.registered("who")
    found: dict[str, Any] = json.loads(host.api.deployment("who", "who")["description"])
    return found


def test_a_script_is_read_as_its_user_while_another_one_hangs(host: Host) -> None:
    said = described(host)
    assert (said["uid"], said["gid"]) == (65534, 65534)
    assert set(said["groups"]) <= {65534}
    assert (said["cwd"], said["nice"]) == (str(host.config), 7)
    assert said["secret"] is False
    assert said["key"] == []
    assert host.json("config", "show")["deployments"][0]["run"]["user"] == "nobody"

    def message() -> Any:
        return [one for one in host.json("status")["problems"] if "hangs.py" in str(one)]

    (problem,) = eventually(message, "the script that hangs to be named", ANSWER_S, log=host.said)
    assert "hangs.py: after 20s it had neither ended nor served a flow" in problem["message"]
    eventually(lambda: left_behind(host) == [], "what it has started to end", ANSWER_S)
    assert host.api.deployment("who", "who")["paused"] is False


def left_behind(host: Host) -> list[str]:
    mark = f"left-behind-by-{host.root.name}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found
