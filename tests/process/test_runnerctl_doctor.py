"""runnerctl doctor: what it prints, and what it finds by itself where no daemon answers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runnerd.cli.console import Console
from runnerd.cli.local_checks import (
    check_configuration,
    check_daemon,
    check_directories,
    check_units,
    find_paths,
    may_read,
    run_checks,
    run_local_checks,
)
from runnerd.cli.verbs.doctor import print_checks
from runnerd.core.errors import ControlError
from runnerd.doctor.checks import Check, check_disks, ok
from runnerd.system.paths import Paths, resolve_paths
from tests.kits.fakes.fake_documents import Json
from tests.kits.fakes.runnerctl import runnerctl
from tests.kits.fakes.serving import Serving, serving

CHECKS = [
    {"name": "api", "state": "ok", "detail": "it answers", "remedy": None},
    {"name": "limits", "state": "warning", "detail": "no cgroup\nis there", "remedy": "use the units"},
    {
        "name": "python /opt/a-rather-long/path/bin/python",
        "state": "error",
        "detail": "no Prefect",
        "remedy": "install it",
    },
    {"name": "clock", "state": "unknown", "detail": "not told", "remedy": None},
]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it


# --- with a daemon ----------------------------------------------------------------------------------------------


def test_what_the_daemon_found(served: Serving) -> None:
    served.host.examined = {"ok": False, "checks": CHECKS}
    result = runnerctl(served, "doctor")
    assert (result.status, result.err) == (1, "")
    assert result.out.splitlines() == [
        "ok       api     it answers",
        "warning  limits  no cgroup?is there",
        "         -> use the units",
        "error    python /opt/a-rather-long/path/bin/python  no Prefect",
        "         -> install it",
        "unknown  clock   not told",
        "1 error, 1 warning, 1 unknown in 4 checks",
    ]


def test_the_document_and_the_exit_status(served: Serving) -> None:
    served.host.examined = {"ok": True, "checks": CHECKS[:2]}
    result = runnerctl(served, "doctor", "--json")
    assert (result.status, result.err) == (0, "")
    assert json.loads(result.out) == served.host.examined
    assert runnerctl(served, "doctor").out.endswith("\n1 warning in 2 checks\n")
    served.host.examined = {"ok": True, "checks": CHECKS[:1]}
    well = runnerctl(served, "doctor")
    assert (well.status, well.out) == (0, "ok       api  it answers\nno problem in 1 check\n")
    served.host.examined = {"ok": False, "checks": CHECKS}
    assert runnerctl(served, "doctor", "--json").status == 1


def test_colours_are_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    print_checks(Console(json=False, width=80, colour=True), CHECKS)
    coloured = capsys.readouterr().out
    assert "\x1b[32mok     \x1b[0m" in coloured
    assert "\x1b[31merror  \x1b[0m" in coloured
    print_checks(Console(json=False, width=None, colour=False), CHECKS)
    assert "\x1b" not in capsys.readouterr().out


# --- without one ------------------------------------------------------------------------------------------------


def test_no_daemon_at_a_socket_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    result = runnerctl(None, "doctor", "--socket", str(path), "--json")
    assert (result.status, result.err) == (1, "")
    found = json.loads(result.out)
    first = found["checks"][0]
    assert found["ok"] is False
    assert (first["name"], first["state"]) == ("runnerd", "error")
    assert first["detail"] == f"runnerd is not running: cannot reach runnerd at {path}: no such file"
    assert first["remedy"]
    plain = runnerctl(None, "doctor", "--socket", str(path))
    assert plain.status == 1
    assert " ".join(plain.out.split()).startswith("error runnerd runnerd is not running: ")
    assert f"not checked: {path} is not a default control socket" in plain.out


def test_a_daemon_that_has_no_doctor_or_does_not_answer() -> None:
    old = check_daemon(ControlError("there is no /v1/doctor here", status=404), systemd=True)
    assert old.state == "error"
    assert "is older than this runnerctl" in old.detail
    assert old.remedy == "systemctl restart runnerd; runs continue through a restart"
    deaf = check_daemon(ControlError("runnerd at /x does not answer; see y", status=504), systemd=True)
    assert "the daemon does not answer: runnerd at /x does not answer" in deaf.detail
    assert "systemctl restart runnerd; runs continue through a restart" in (deaf.remedy or "")
    broken = check_daemon(ControlError("runnerd answered with status 500", status=500), systemd=True)
    assert "the doctor of runnerd does not answer: runnerd answered with status 500" in broken.detail
    gone = check_daemon(ControlError("cannot reach runnerd at /x: no such file; is it running?"), systemd=True)
    assert gone.remedy == "systemctl status runnerd"


@pytest.mark.time_limit(45.0)  # a daemon that is only slow gets sixty seconds
def test_a_daemon_that_hangs_is_told_soon(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as deaf:  # it takes connections, and never reads
        deaf.bind(path)
        deaf.listen(8)
        result = runnerctl(None, "doctor", "--socket", path, "--json")
    found = json.loads(result.out)
    assert (result.status, result.err, found["checks"][0]["name"]) == (1, "", "runnerd")
    assert found["checks"][0]["detail"].startswith(f"the daemon does not answer: runnerd at {path} does not answer")
    assert "directories" in [check["name"] for check in found["checks"]], "what can be found out without the daemon"


def test_a_doctor_that_takes_its_time_is_waited_for(served: Serving) -> None:
    slow = asyncio.Event()
    answer = served.host.doctor

    async def examine() -> Json:
        await slow.wait()
        return await answer()

    served.host.doctor = examine  # type: ignore[method-assign]
    asked = served.host.health

    def health() -> tuple[bool, Json]:
        slow.set()  # the second question is what the first one is answered after
        return asked()

    served.host.health = health  # type: ignore[method-assign]
    assert runnerctl(served, "doctor", "--json").status == 0


@pytest.mark.time_limit(15.0)
def test_checks_that_hang_take_one_limit_together() -> None:
    stuck = threading.Event()

    def hang() -> list[Check]:
        stuck.wait(60.0)
        return []

    found = run_checks(dict.fromkeys("abcdefghij", hang), timeout_s=2.0)
    stuck.set()
    assert [check.state for check in found] == ["unknown"] * 10


def test_a_user_s_own_runnerd(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    own = resolve_paths(environ=environ, root=False)
    for path in (own.config, own.state):
        os.makedirs(path)
    assert find_paths(environ, root=False, socket_path=own.control_socket) == own
    assert find_paths(environ, root=False, socket_path="/somewhere/else.sock") is None
    host = resolve_paths(environ={}, root=True)
    assert find_paths(environ, root=False, socket_path=host.control_socket) == host


def test_the_checks_without_a_daemon(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    own = resolve_paths(environ=environ, root=os.geteuid() == 0)
    found = run_local_checks(environ, error=ControlError("gone"), socket_path=own.control_socket)
    names = [check.name for check in found if not check.name.endswith(".service")]
    assert names == ["runnerd", "configuration", "state directory", "log directory", "state disk", "log disk"]


def test_the_configuration_is_checked(tmp_path: Path) -> None:
    environ = {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
    assert check_configuration(str(tmp_path), environ) == ok("configuration", f"{tmp_path} has no problem")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10-x.yaml").write_text("deployements: []\nlimts: {}\n")
    broken = check_configuration(str(tmp_path), environ)
    assert broken.state == "error"
    assert broken.detail.startswith(f"{tmp_path}/conf.d/10-x.yaml:1:1: unknown key 'deployements'")
    assert broken.detail.endswith(" and 1 more")
    (tmp_path / "runnerd.yaml").write_text("limits: many\n")
    assert check_configuration(str(tmp_path), environ).detail.endswith("; runnerd cannot start with this configuration")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_configuration_that_we_may_not_read(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir(mode=0o300)
    found = check_configuration(str(tmp_path), {})
    assert found.state == "unknown"
    assert found.detail == f"cannot read {tmp_path}/conf.d: permission denied"
    (tmp_path / "conf.d").chmod(0o700)


def test_who_may_read_what(tmp_path: Path) -> None:
    me, other = os.geteuid(), os.geteuid() + 1
    file = tmp_path / "file"
    file.write_text("")
    for mode, others, group in ((0o600, False, False), (0o640, False, True), (0o644, True, True)):
        file.chmod(mode)
        about = file.stat()
        assert may_read(about, me, []) is True
        assert may_read(about, other, []) is others
        assert may_read(about, other, [about.st_gid]) is group
    tmp_path.chmod(0o704)  # to list it is not to enter it
    assert may_read(tmp_path.stat(), other, []) is False
    tmp_path.chmod(0o700)


def test_directories_and_disks(tmp_path: Path) -> None:
    paths = Paths(*(str(tmp_path / name) for name in ("etc", "run", "state", "log")), None)
    Path(paths.state).mkdir()
    assert [check.state for check in check_directories(paths)] == ["ok", "error"]
    state, log = check_disks(state=paths.state, log=paths.log)
    assert paths.state in state.detail
    assert log.state == "unknown"


# --- its units --------------------------------------------------------------------------------------------------


def shown(unit: str, **changes: str) -> str:
    its = {"LoadState": "loaded", "ActiveState": "active", "Result": "success", "ExecMainStatus": "0"} | changes
    return "".join(
        f"{key}={value}\n" for key, value in ({"Id": f"{unit}.service", "UnitFileState": "enabled"} | its).items()
    )


@pytest.mark.parametrize(
    ("changes", "state", "words"),
    [
        ({}, "ok", "is active"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, "warning", "is not installed"),
        ({"LoadState": "masked", "ActiveState": "inactive"}, "error", "systemctl unmask runnerd"),
        (
            {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78"},
            "error",
            "cannot use the configuration",
        ),
        ({"ActiveState": "failed", "Result": "watchdog", "ExecMainStatus": "6"}, "error", "watchdog, exit status 6"),
        ({"ActiveState": "activating"}, "warning", "is activating"),
        ({"ActiveState": "inactive"}, "warning", "systemctl start runnerd"),
        ({"ActiveState": "inactive", "UnitFileState": "disabled"}, "warning", "systemctl enable --now runnerd"),
    ],
)
def test_a_unit(changes: dict[str, str], state: str, words: str) -> None:
    (check,) = check_units(lambda: shown("runnerd", **changes) + "\n" + shown("some-other"))
    assert (check.name, check.state) == ("runnerd.service", state)
    assert words in f"{check.detail} {check.remedy}"
    assert (check.remedy is None) is (state == "ok")


def test_both_units_and_none() -> None:
    stopped = shown("runnerd-spawner", ActiveState="inactive", UnitFileState="static")
    both = check_units(lambda: shown("runnerd") + "\n" + stopped)
    assert [(check.name, check.state) for check in both] == [
        ("runnerd.service", "ok"),
        ("runnerd-spawner.service", "ok"),
    ]

    def refuse() -> str:
        raise subprocess.CalledProcessError(1, "systemctl", stderr="Failed to connect to bus\n")

    def absent() -> str:
        raise FileNotFoundError(2, "No such file or directory", "systemctl")

    for listed, words in ((refuse, "Failed to connect to bus"), (absent, "cannot run systemctl")):
        (check,) = check_units(listed)
        assert check.state == "unknown"
        assert words in check.detail


# --- checks that go wrong ----------------------------------------------------------------------------------------


def test_a_check_that_hangs_or_fails_delays_no_other() -> None:
    end = threading.Event()

    def hang() -> list[Check]:
        end.wait()
        return []

    def fail() -> list[Check]:
        raise RuntimeError("this is the fault under test")

    checks: dict[str, Callable[[], list[Check]]] = {"a": hang, "b": fail, "c": lambda: [ok("c", "well")]}
    a, b, c = run_checks(checks, timeout_s=0.5)
    end.set()
    assert (a.name, a.state) == ("a", "unknown")
    assert a.detail == "check did not finish within 500ms"
    assert b.detail == "cannot check: RuntimeError: this is the fault under test"
    assert c == ok("c", "well")
