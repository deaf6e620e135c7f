"""`systemctl stop` is not `systemctl restart`, and neither is a crash, an upgrade or a shutdown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.machines.host_on_machine import MAIN, MachineHost
from tests.kits.machines.trees import package, repacked

SPAWNER = "runnerd-spawner"


def restart(host: MachineHost, tmp_path: Path) -> None:
    host.run("systemctl", "restart", "runnerd")


def try_restart(host: MachineHost, tmp_path: Path) -> None:
    host.run("systemctl", "try-restart", "runnerd")


def kill_daemon(host: MachineHost, tmp_path: Path) -> None:
    host.run("systemctl", "kill", "-s", "KILL", "runnerd")


def terminate_daemon(host: MachineHost, tmp_path: Path) -> None:
    """A SIGTERM that belongs to no stop job."""
    host.run("kill", str(host.pid()))


def reinstall(host: MachineHost, tmp_path: Path) -> None:
    host.install(package(), "--reinstall")


def upgrade(host: MachineHost, tmp_path: Path) -> None:
    host.install(repacked(package(), version="99.0", into=tmp_path))
    assert host.sh("dpkg-query -W -f '${Version}' runnerd") == "99.0"
    host.install(package(), "--allow-downgrades")


@pytest.mark.parametrize(
    "happens",
    [restart, try_restart, kill_daemon, terminate_daemon, reinstall, upgrade],
    ids=lambda one: str(one.__name__),
)
def test_flows_run_on(host: MachineHost, happens, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    host.sh("rm -f /tmp/go")
    run_id = host.begin("waits")
    pid, spawner, daemon = host.found(run_id)["pid"], host.pid(SPAWNER), host.pid()
    happens(host, tmp_path)
    host.until(lambda: host.show("runnerd", "ActiveState") == "active" and host.pid() != daemon, "it is back")
    host.until(lambda: host.found(run_id).get("phase") == "running", "the run is adopted")
    assert host.found(run_id)["pid"] == pid
    assert host.pid(SPAWNER) == spawner
    host.sh("touch /tmp/go")
    host.ends(run_id, "Completed")
    host.until(lambda: host.found(run_id).get("phase") == "done", "it is done")
    assert host.found(run_id)["exit"]["code"] == 0  # seen by the spawner, which never went away


def test_an_upgrade_reaches_the_spawner_once_no_run_needs_it(host: MachineHost, tmp_path: Path) -> None:
    host.sh("rm -f /tmp/go")
    run_id = host.begin("waits")
    spawner = host.pid(SPAWNER)
    host.install(repacked(package(), version="99.0", into=tmp_path))
    try:
        host.until(lambda: host.found(run_id).get("phase") == "running", "the run is adopted")
        assert "differs from runnerd's" in host.runnerctl("doctor", check=False).out
        assert host.pid(SPAWNER) == spawner
        host.sh("touch /tmp/go")
        host.ends(run_id, "Completed")
        host.until(lambda: host.pid(SPAWNER) not in (0, spawner), "a new spawner is there")
        host.until(lambda: "connected, version 99.0" in host.runnerctl("doctor", check=False).out, "of that version")
    finally:
        host.install(package(), "--allow-downgrades")
        host.configure()


def test_flows_outlive_the_spawner(host: MachineHost) -> None:
    host.sh("rm -f /tmp/go")
    run_id = host.begin("waits")
    pid, spawner = host.found(run_id)["pid"], host.pid(SPAWNER)
    host.run("systemctl", "kill", "-s", "KILL", SPAWNER)
    host.until(lambda: host.pid(SPAWNER) not in (0, spawner), "the next spawner serves")
    assert host.alive(pid)
    other = host.begin("naps")
    assert host.runnerctl("cancel", other, "--wait").status == 0
    host.sh("touch /tmp/go")
    host.ends(run_id, "Completed")


def test_stop_drains_and_then_ends_what_is_left(host: MachineHost) -> None:
    host.configure()
    run_id = host.begin("naps")
    pid = host.found(run_id)["pid"]
    host.run("systemctl", "stop", "runnerd")
    assert not host.alive(pid)
    for unit in (SPAWNER, "runnerd-runs"):  # nobody needs them from here on, and they go by themselves
        host.until(lambda unit=unit: host.show(unit, "ActiveState") == "inactive", f"{unit} is gone")
    assert host.show("runnerd", "Result") == "success"
    assert host.state(run_id)["name"] == "Cancelled"
    assert host.runnerctl("status", check=False).status == 3  # and nobody starts it by asking
    assert host.show("runnerd", "ActiveState") == "inactive"
    host.run("systemctl", "start", "runnerd")


def test_no_bus_is_needed_to_tell_them_apart(host: MachineHost) -> None:
    host.sh("systemctl stop dbus.socket dbus.service 2>/dev/null")
    try:
        run_id = host.begin("naps")
        host.run("systemctl", "restart", "runnerd")
        host.until(lambda: host.found(run_id).get("phase") == "running", "the run is adopted")
        host.run("systemctl", "stop", "runnerd")
        assert host.state(run_id)["name"] == "Cancelled"
    finally:
        host.sh("systemctl start dbus.socket runnerd")


def test_a_long_drain_gets_the_time_it_takes(host: MachineHost) -> None:
    """More than TimeoutStopSec, which would otherwise end it by SIGKILL."""
    drop_in = "/etc/systemd/system/runnerd.service.d/stop.conf"
    host.configure(MAIN.replace("drain_timeout: 2s", "drain_timeout: 2min"))
    host.machine.write(drop_in, "[Service]\nTimeoutStopSec=2s\n")
    host.run("systemctl", "daemon-reload")
    try:
        run_id = host.begin("naps", "-p", "seconds=8.0")
        host.run("systemctl", "stop", "runnerd")
        assert host.show("runnerd", "Result") == "success"
        assert host.state(run_id)["name"] == "Completed"
    finally:
        host.sh(f"rm {drop_in}; systemctl daemon-reload")
        host.configure()


def test_another_sigterm_ends_a_drain_at_once(host: MachineHost) -> None:
    host.configure(MAIN.replace("drain_timeout: 2s", "drain_timeout: 10min"))
    run_id = host.begin("ignores")
    host.until(lambda: host.run("test", "-e", "/tmp/ignoring", check=False).status == 0, "the flow ignores SIGTERM")
    stopping = host.machine.start("systemctl", "stop", "runnerd")
    host.until(lambda: "draining" in host.show("runnerd", "StatusText"), "it drains")
    pid = host.found(run_id)["pid"]
    host.run("systemctl", "kill", "-s", "TERM", "--kill-who=main", "runnerd")
    host.until(lambda: host.found(run_id).get("phase") == "stopping", "it is told to end")
    host.run("systemctl", "kill", "-s", "TERM", "--kill-who=main", "runnerd")
    stopping.communicate(timeout=60)
    assert not host.alive(pid)
    assert host.state(run_id)["name"] == "Cancelled"
    host.configure()


def test_a_shutdown_drains(bare: MachineHost) -> None:
    """And in order: the run is told to the server before that goes."""
    bare.install(package())
    bare.run("systemctl", "enable", "--now", "runnerd-server")
    bare.serve_prefect()
    bare.configure()
    run_id = bare.begin("naps")
    bare.machine.reboot()
    bare.until(lambda: bare.show("runnerd", "ActiveState") == "active", "it comes up again")
    bare.serve_prefect()
    assert bare.ends(run_id, "Cancelled")
    text = bare.sh("journalctl --no-pager -b -1 -o short-monotonic -u runnerd -u runnerd-server -u runnerd-spawner")
    assert "draining" in text
    assert bare.found(run_id)["phase"] == "done"


# --- the watchdog -------------------------------------------------------------------------------------------------


def test_a_wedged_daemon_is_killed_while_flows_run_on(host: MachineHost) -> None:
    host.configure()
    drop_in = "/etc/systemd/system/runnerd.service.d/watchdog.conf"
    host.machine.write(drop_in, "[Service]\nWatchdogSec=4s\nTimeoutAbortSec=1s\n")
    host.sh("systemctl daemon-reload; systemctl restart runnerd")
    try:
        run_id = host.begin("waits")
        pid, daemon, restarts = host.found(run_id)["pid"], host.pid(), int(host.show("runnerd", "NRestarts"))
        host.run("kill", "-STOP", str(daemon))
        host.until(lambda: int(host.show("runnerd", "NRestarts")) == restarts + 1, "the watchdog bites")
        host.until(lambda: host.found(run_id).get("phase") == "running", "the next one has adopted the run")
        assert host.found(run_id)["pid"] == pid
        host.sh("touch /tmp/go")
        host.ends(run_id, "Completed")
    finally:
        host.sh(f"rm {drop_in}; systemctl daemon-reload")
        host.configure()


def test_the_watchdog_is_fed_while_the_api_is_away(host: MachineHost) -> None:
    drop_in = "/etc/systemd/system/runnerd.service.d/watchdog.conf"
    host.machine.write(drop_in, "[Service]\nWatchdogSec=2s\n")
    host.sh("systemctl stop runnerd-server; systemctl daemon-reload; systemctl restart runnerd")
    daemon = host.pid()
    try:
        fed: set[str] = set()

        def often() -> bool:
            fed.add(host.show("runnerd", "WatchdogTimestampMonotonic"))
            return len(fed) > 4

        host.until(often, "it is fed again and again")
        assert host.pid() == daemon
    finally:
        host.sh(f"rm {drop_in}; systemctl daemon-reload")
        host.serve_prefect()
        host.configure()
