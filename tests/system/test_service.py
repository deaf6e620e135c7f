"""The service after `apt install`: its units, who may do what, and what systemd says of it."""

from __future__ import annotations

import json

import pytest

from tests.kits.machines.host_on_machine import MachineHost, deployments

UNITS = (
    "runnerd.service",
    "runnerd-spawner.service",
    "runnerd-runs.service",
    "runnerd-reload.service",
    "runnerd-reload-again.service",
    "runnerd-server.service",
    "runnerd.socket",
    "runnerd.path",
    "runnerd-flows.target",
)
AS_USER = ("setpriv", "--reuid", "runnerd-flow", "--regid", "runnerd-flow", "--clear-groups")


def test_it_is_up_and_tells_the_truth_in_one_line(host: MachineHost) -> None:
    assert host.show("runnerd", "ActiveState") == "active"
    assert host.show("runnerd", "UnitFileState") == "enabled"
    host.until(lambda: host.show("runnerd", "StatusText") == "0 running of 10, API ok", "the status says so")
    run_id = host.begin("naps")
    host.until(lambda: host.show("runnerd", "StatusText") == "1 running of 10, API ok", "the status says so")
    host.runnerctl("cancel", run_id, "--wait")


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_has_no_complaint_about_a_unit(host: MachineHost, unit: str) -> None:
    said = host.run("systemd-analyze", "verify", "--man=yes", unit, check=False)
    assert (said.status, said.out, said.err) == (0, "", "")


def exposure(host: MachineHost, unit: str) -> float:
    said = host.run("systemd-analyze", "security", "--no-pager", unit).out
    return float(said.rsplit("exposure level for ", 1)[1].split(":")[1].split()[0])


def test_exposure(host: MachineHost) -> None:
    """The spawner's is what starting processes as any user for anything leaves; see docs/adr."""
    assert exposure(host, "runnerd.service") <= 2.0
    assert exposure(host, "runnerd-reload.service") <= 2.0
    assert exposure(host, "runnerd-reload-again.service") <= 2.0
    assert exposure(host, "runnerd-server.service") <= 2.0
    assert exposure(host, "runnerd-spawner.service") <= 8.5


def test_the_daemon_has_no_privileges(host: MachineHost) -> None:
    status = host.sh(f"cat /proc/{host.pid()}/status")
    facts = dict(line.split(":", 1) for line in status.splitlines())
    assert facts["CapEff"].strip() == facts["CapPrm"].strip() == facts["CapBnd"].strip() == "0" * 16
    assert facts["NoNewPrivs"].strip() == "1"
    assert host.sh(f"ps -o user= -p {host.pid()}") == "runnerd"


def test_who_may_speak_to_whom(host: MachineHost) -> None:
    assert host.sh("stat -c '%a %U:%G' /run/runnerd/control.sock") == "660 runnerd:runnerd"
    refused = host.run(*AS_USER, "runnerctl", "status", check=False)
    assert refused.status == 5, refused
    host.run(
        "setpriv", "--reuid", "runnerd-flow", "--regid", "runnerd-flow", "--groups", "runnerd", "runnerctl", "status"
    )
    ask = "import socket; socket.socket(socket.AF_UNIX).connect('/run/runnerd-spawner/spawner.sock')"
    denied = host.run(*AS_USER, "python3", "-c", ask, check=False)
    assert denied.status != 0 and "PermissionError" in denied.err


def test_nothing_of_root_is_started_for_the_daemon(host: MachineHost) -> None:
    """Whoever owns the daemon must not own the host."""
    text = "deployments:\n  - {name: root, entrypoint: 'machine_flows.py:speaks', run: {user: root}}\n"
    host.machine.write("/etc/runnerd/conf.d/root.yaml", text)
    try:
        host.until(lambda: "RUNNERD_FLOW_USERS" in json.dumps(host.status()), "it is refused, and says what to do")
        assert names(host)["root"] != "ready"
    finally:
        host.configure()


def test_flows_run_as_their_own_user_and_in_a_cgroup_of_their_own(host: MachineHost) -> None:
    run_id = host.begin("naps")
    pid = host.found(run_id)["pid"]
    try:
        assert host.found(run_id)["user"] == "runnerd-flow"
        cgroups = host.sh(f"cat /proc/{pid}/cgroup").splitlines()
        assert f"0::/system.slice/runnerd-runs.service/run-{run_id}.1" in cgroups
        environment = host.sh(f"tr '\\0' '\\n' </proc/{pid}/environ")
        assert not [line for line in environment.splitlines() if line.startswith(("NOTIFY_", "WATCHDOG_", "LISTEN_"))]
    finally:
        host.runnerctl("cancel", run_id, "--wait")


def test_ready_means_adopted_and_not_that_the_api_answers(host: MachineHost) -> None:
    host.run("systemctl", "stop", "runnerd-server")
    try:
        host.run("systemctl", "restart", "runnerd")
        assert host.show("runnerd", "ActiveState") == "active"
        host.until(lambda: "API unreachable" in host.show("runnerd", "StatusText"), "the status says so")
    finally:
        host.serve_prefect()
    host.until(lambda: host.show("runnerd", "StatusText") == "0 running of 10, API ok", "it heals by itself")


def test_a_broken_configuration_is_said_once_and_not_tried_again(host: MachineHost) -> None:
    host.sh("echo 'api: [' >/etc/runnerd/runnerd.yaml")
    try:
        assert host.run("systemctl", "restart", "runnerd", check=False).status != 0
        assert host.show("runnerd", "ExecMainStatus") == "78"
        assert host.show("runnerd", "ActiveState") == "failed"
        assert "/etc/runnerd/runnerd.yaml:" in host.sh("journalctl --no-pager -u runnerd -n 20 -o cat")
    finally:
        host.configure()


# --- reload -------------------------------------------------------------------------------------------------------


def names(host: MachineHost) -> dict[str, str]:
    return {one["name"]: one["state"] for one in host.status()["deployments"]}


def test_reload_returns_when_it_is_done(host: MachineHost) -> None:
    host.run("systemctl", "stop", "runnerd.path")
    pid = host.pid()
    try:
        host.machine.write("/etc/runnerd/conf.d/more.yaml", deployments("speaks").replace("name: speaks", "name: more"))
        assert "more" not in names(host)
        host.run("systemctl", "reload", "runnerd")
        assert names(host)["more"] == "ready"
        host.machine.write("/etc/runnerd/conf.d/more.yaml", "deployments: [}")
        assert host.run("systemctl", "reload", "runnerd", check=False).status != 0
        assert names(host)["more"] == "invalid"
        host.until(lambda: "1 problem" in host.show("runnerd", "StatusText"), "the status says so")
        host.ends(host.create("more"), "Completed")  # its last good version is in force
        assert host.show("runnerd", "ActiveState") == "active"
        assert host.pid() == pid
    finally:
        host.configure()


def test_a_dropped_file_is_picked_up_by_itself(host: MachineHost) -> None:
    host.machine.write(
        "/etc/runnerd/conf.d/dropped.yaml", deployments("speaks").replace("name: speaks", "name: dropped")
    )
    try:
        host.until(lambda: names(host).get("dropped") == "ready", "it is registered")
        host.sh("rm /etc/runnerd/conf.d/dropped.yaml")
        host.until(lambda: "dropped" not in names(host), "it is dropped again")
    finally:
        host.configure()


def test_a_file_that_the_reload_has_missed_is_loaded_after_it(host: MachineHost) -> None:
    """One that was changed after the reload's last look, and before systemd watches again."""
    drop_in = "/etc/systemd/system/runnerd-reload.service.d/blind.conf"
    host.machine.write(drop_in, "[Service]\nExecStart=\nExecStart=/bin/true\n")
    host.run("systemctl", "daemon-reload")
    try:
        host.machine.write(
            "/etc/runnerd/conf.d/missed.yaml", deployments("speaks").replace("name: speaks", "name: missed")
        )
        host.until(lambda: names(host).get("missed") == "ready", "it is registered")
    finally:
        host.sh(f"rm {drop_in}; systemctl daemon-reload")
        host.configure()


def test_notify_reload_may_come_by_drop_in(host: MachineHost) -> None:
    if host.suite == "bookworm":
        pytest.skip("systemd 252 has no Type=notify-reload")
    drop_in = "/etc/systemd/system/runnerd.service.d/reload.conf"
    host.machine.write(drop_in, "[Service]\nType=notify-reload\nExecReload=\n")
    host.run("systemctl", "daemon-reload")
    try:
        host.run("systemctl", "restart", "runnerd")
        host.run("systemctl", "stop", "runnerd.path")
        host.machine.write("/etc/runnerd/conf.d/more.yaml", deployments("speaks").replace("name: speaks", "name: more"))
        host.run("systemctl", "reload", "runnerd")
        assert names(host)["more"] == "ready"
    finally:
        host.sh(f"rm {drop_in}; systemctl daemon-reload")
        host.configure()
