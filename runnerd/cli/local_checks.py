"""Checks this host for runnerctl doctor when no daemon answers.

Invariants: a check that hangs or fails has state unknown, and delays no other check; what only the daemon's user may
read is not judged.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from runnerd import __version__
from runnerd.core.errors import ControlError
from runnerd.core.units import format_duration
from runnerd.doctor.checks import Check, check_directory, check_disks, error, ok, unknown, warning
from runnerd.system.paths import SYSTEMD, Paths, resolve_paths
from runnerd.system.service_environment import merge_environments, read_service_environment

CheckFunction = Callable[[], Sequence[Check]]
UNITS = ("runnerd.service", "runnerd-spawner.service")
LIMIT_S = 10.0
_DAEMON = "runnerd"  # the user of the packaged service


def run_local_checks(
    environ: Mapping[str, str], *, error: ControlError, socket_path: str, limit_s: float = LIMIT_S
) -> list[Check]:
    """Run every check, in `limit_s` seconds at most; `error` is why the daemon's own doctor did not answer."""
    systemd = os.path.isdir(SYSTEMD)
    paths = find_paths(environ, root=os.geteuid() == 0, socket_path=socket_path)
    checks: dict[str, CheckFunction] = {}
    if systemd:
        checks["units"] = lambda: check_units(lambda: list_units(timeout_s=limit_s / 2))
    if paths is not None:
        checks |= {
            "configuration": lambda: [check_configuration(paths.config, environ)],
            "directories": lambda: check_directories(paths),
            "disks": lambda: check_disks(state=paths.state, log=paths.log),
        }
    else:
        checks["directories"] = lambda: [check_nothing_more(socket_path)]
    return [check_daemon(error, systemd=systemd), *run_checks(checks, timeout_s=limit_s)]


def find_paths(environ: Mapping[str, str], *, root: bool, socket_path: str) -> Paths | None:
    """Find the directories of the runnerd at this socket; None for a socket that is not in a default place."""
    names = ("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")
    users = {name: environ[name] for name in names if name in environ}
    own, host = resolve_paths(environ=users, root=root), resolve_paths(environ={}, root=True)
    if socket_path == own.control_socket:
        return own if os.path.exists(own.config) or not os.path.exists(host.config) else host
    return host if socket_path == host.control_socket else None


def run_checks(checks: Mapping[str, CheckFunction], *, timeout_s: float) -> list[Check]:
    """Run each check in a thread of its own, all within `timeout_s`, so that a dead file system delays no other."""
    found: dict[str, Sequence[Check]] = {}

    def run_one(name: str, check: CheckFunction) -> None:
        try:
            found[name] = check()
        except Exception as why:
            found[name] = [unknown(name, f"cannot check: {type(why).__name__}: {why}")]

    threads = [threading.Thread(target=run_one, args=item, daemon=True) for item in checks.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    detail = f"check did not finish within {format_duration(timeout_s)}"
    late = [unknown("", detail, "find the file system that hangs: df, findmnt")]
    return [check._replace(name=check.name or name) for name in checks for check in found.get(name, late)]


# --- the daemon and its units ---------------------------------------------------------------------------------


def check_daemon(why: ControlError, *, systemd: bool) -> Check:
    if why.status == 0:
        remedy = "systemctl status runnerd" if systemd else "start runnerd; if it cannot start, it prints why"
        return error("runnerd", f"runnerd is not running: {str(why).partition(';')[0]}", remedy)
    if why.status == 404:
        detail = f"the running runnerd is older than this runnerctl ({__version__}) and has no doctor"
        restart = "systemctl restart runnerd" if systemd else "restart runnerd"
        return error("runnerd", detail, f"{restart}; runs continue through a restart")
    if why.status == 504:
        detail = f"the daemon does not answer: {str(why).partition(';')[0]}; the checks below are those without it"
        restart = "systemctl restart runnerd; " if systemd else "restart runnerd; "
        return error("runnerd", detail, f"see journalctl -u runnerd; {restart}runs continue through a restart")
    return error("runnerd", f"the doctor of runnerd does not answer: {why}", "see journalctl -u runnerd")


def check_nothing_more(socket_path: str) -> Check:
    detail = (
        f"not checked: {socket_path} is not a default control socket, so where this runnerd has its files is unknown"
    )
    return unknown(
        "directories", detail, "start this runnerd and run the doctor again; runnerctl config check DIRECTORY"
    )


def list_units(*, timeout_s: float) -> str:
    """Return systemd's properties of UNITS, a paragraph each. Raises OSError and subprocess.SubprocessError."""
    argv = ["systemctl", "show", "--property=Id,LoadState,ActiveState,Result,ExecMainStatus,UnitFileState", *UNITS]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=True)
    return done.stdout


def check_units(listed: Callable[[], str]) -> list[Check]:
    try:
        text = listed()
    except subprocess.CalledProcessError as why:
        words = (why.stderr or "").strip().partition("\n")[0]
        return [unknown("units", f"systemctl show failed: {words}", "check D-Bus: systemctl status dbus.socket")]
    except (OSError, subprocess.SubprocessError) as why:
        return [unknown("units", f"cannot run systemctl: {why}")]
    units = [dict(line.split("=", 1) for line in part.splitlines() if "=" in line) for part in text.split("\n\n")]
    return [check_unit(its) for its in units if its.get("Id") in UNITS]


def check_unit(its: Mapping[str, str]) -> Check:
    unit = its["Id"]
    short = unit.removesuffix(".service")
    state = its.get("ActiveState", "unknown")
    if its.get("LoadState") == "not-found":
        return warning(unit, "is not installed", "install the package, unless this host starts runnerd in another way")
    if its.get("LoadState") not in ("loaded", None):
        return error(
            unit, f"unit file is {its['LoadState']}", f"systemctl status {short} shows why; systemctl unmask {short}"
        )
    if state == "failed":
        detail = f"failed: {_format_failure(its)}"
        return error(unit, detail, f"journalctl -u {short} -n 50 shows why; then systemctl start runnerd")
    if state in ("activating", "deactivating", "reloading"):
        return warning(unit, f"is {state}", f"wait; journalctl -u {short} shows what it waits for")
    if state == "inactive" and unit != UNITS[0]:
        return ok(unit, "is stopped, because runnerd is stopped")
    if state == "inactive":
        boot = (
            ""
            if its.get("UnitFileState") in ("enabled", "static")
            else f", and does not start at boot ({its.get('UnitFileState') or 'disabled'})"
        )
        remedy = "systemctl enable --now runnerd" if boot else "systemctl start runnerd"
        return warning(unit, f"is stopped{boot}", remedy)
    return ok(unit, f"is {state}")


def _format_failure(its: Mapping[str, str]) -> str:
    status = its.get("ExecMainStatus")
    if status == "78":
        return "cannot use the configuration (exit status 78)"
    return f"{its.get('Result', 'unknown')}, exit status {status}"


# --- configuration, directories and disks ---------------------------------------------------------------------


def check_configuration(directory: str, environ: Mapping[str, str]) -> Check:
    from runnerd.config import check, find_defaults

    name = "configuration"
    hidden = _find_unreadable(directory)
    if hidden is not None and os.geteuid() != 0:
        return unknown(name, f"cannot read {hidden}: permission denied", "run as root: sudo runnerctl doctor")
    environ = merge_environments(environ, read_service_environment(directory))
    defaults = find_defaults(environ, root=os.geteuid() == 0)
    config, problems = check(directory, defaults=defaults)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        fatal = "; runnerd cannot start with this configuration" if config is None else ""
        remedy = f"fix the problems listed by: runnerd check --config {directory}"
        return error(name, f"{problems[0]}{more}{fatal}", remedy)
    closed = _find_closed_to_daemon(directory)
    if closed is not None:
        return error(name, f"user {_DAEMON} cannot read {closed}", f"chgrp {_DAEMON} {closed} && chmod g+rX {closed}")
    return ok(name, f"{directory} has no problem")


def _list_files(directory: str) -> list[str]:
    """List the directory, conf.d, and the configuration files in both."""
    found = [directory, os.path.join(directory, "runnerd.yaml"), os.path.join(directory, "conf.d")]
    try:
        found += [entry.path for entry in os.scandir(found[2]) if entry.name.endswith(".yaml")]
    except OSError:
        pass  # conf.d is in the list, so the caller finds the same error
    return [path for path in found if os.path.lexists(path)]


def _find_unreadable(directory: str) -> str | None:
    """Find the first file or directory of the configuration that this process may not read."""
    wanted = ((path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)) for path in _list_files(directory))
    return next((path for path, mode in wanted if not os.access(path, mode)), None)


def _find_closed_to_daemon(directory: str) -> str | None:
    """Find the first file or directory that the daemon's user may not read by its mode; None without that user."""
    try:
        user = pwd.getpwnam(_DAEMON)
    except KeyError:
        return None
    if os.geteuid() != 0 or directory != resolve_paths(environ={}, root=True).config:
        return None
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return next((path for path in _list_files(directory) if not may_read(os.stat(path), user.pw_uid, groups)), None)


def may_read(about: os.stat_result, uid: int, gids: Sequence[int]) -> bool:
    """Return whether this user may read the file, or list and enter the directory."""
    shift = 6 if about.st_uid == uid else 3 if about.st_gid in gids else 0
    wanted = 0o5 if about.st_mode & 0o170000 == 0o040000 else 0o4
    return uid == 0 or (about.st_mode >> shift) & wanted == wanted


def check_directories(paths: Paths) -> list[Check]:
    """Check that the state and log directories exist; only the daemon's user could check that it may write there."""
    found = []
    for name, path in (("state directory", paths.state), ("log directory", paths.log)):
        check = check_directory(name, path, user=_DAEMON, write=False)
        exists = os.path.isdir(path)
        found.append(ok(name, f"{path} exists") if exists else check)
    return found
