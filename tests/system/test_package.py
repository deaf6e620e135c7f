"""The package from its installation to its purge, on a machine with nothing else."""

from __future__ import annotations

import json

from tests.kits.machines.host_on_machine import MachineHost
from tests.kits.machines.trees import package

TRACES = "/etc/runnerd /var/lib/runnerd /var/lib/runnerd-flow /var/log/runnerd /run/runnerd /run/runnerd-spawner"


def test_from_installation_to_purge(bare: MachineHost) -> None:
    before = files(bare)
    said = bare.install(package())
    assert "Traceback" not in said and "rror" not in said, said
    bare.until(lambda: bare.show("runnerd", "ActiveState") == "active", "it was started")
    assert "API unreachable" in bare.show("runnerd", "StatusText")
    assert bare.status()["deployments"] == []
    assert bare.runnerctl("config", "check").status == 0
    checks = json.loads(bare.runnerctl("doctor", "--json", check=False).out)["checks"]
    assert {one["name"] for one in checks if one["state"] == "error"} <= {"api"}
    for page in ("runnerd", "runnerd-spawner", "runnerctl", "runnerd.yaml"):
        assert bare.sh(f"man -w {page}")
    assert bare.sh("dpkg -V runnerd") == ""
    assert bare.sh("systemd-analyze verify /usr/lib/systemd/system/runnerd* 2>&1 || true") == ""
    assert "/etc/runnerd/runnerd.yaml.old" in bare.runnerctl("init", "--api-url", "http://127.0.0.1:9/api").out
    assert bare.runnerctl("config", "check").status == 0

    bare.sh("apt-get -qq remove -y runnerd")
    assert bare.sh("pgrep -u runnerd || true") == ""
    assert bare.run("test", "-d", "/etc/runnerd", check=False).status == 0
    assert bare.run("test", "-e", "/run/runnerd/control.sock", check=False).status != 0

    bare.sh("apt-get -qq purge -y runnerd")
    left = [one for one in TRACES.split() if bare.run("test", "-e", one, check=False).status == 0]
    assert left == []
    assert bare.sh("getent passwd runnerd runnerd-flow; getent group runnerd runnerd-flow || true", check=False) == ""
    assert bare.sh("systemctl list-unit-files --no-legend 'runnerd*' || true") == ""
    assert files(bare) - before == set()


def files(host: MachineHost) -> set[str]:
    places = "/etc /usr /var/lib /var/log /run/systemd/system"
    # What apt, dpkg and the journal write down of it is theirs.
    theirs = ("/var/lib/dpkg", "/var/lib/apt", "/var/cache", "/var/log/journal", "/var/log/apt", "/var/log/dpkg.log")
    skip = " -o ".join([*(f"-path {path}" for path in theirs), "-name __pycache__"])
    return set(host.sh(f"find {places} \\( {skip} \\) -prune -o -print").splitlines())


def test_a_host_whose_flow_user_was_taken_away(bare: MachineHost) -> None:
    """Nothing of this host's trouble is a traceback."""
    bare.install(package())
    bare.until(lambda: bare.show("runnerd", "ActiveState") == "active", "it was started")
    bare.sh("systemctl stop runnerd; userdel runnerd-flow; systemctl start runnerd")
    said = bare.runnerctl("doctor", check=False)
    assert said.status == 1 and "runnerd-flow" in said.out
    bare.sh("systemctl stop runnerd")
    said = bare.runnerctl("doctor", check=False)
    assert said.status == 1 and "systemctl" in said.out + said.err
