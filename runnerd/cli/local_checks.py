"""What runnerctl can tell of this host by itself, where no daemon answers.

Invariants: a look that hangs or fails is a check that says so, and holds up no other; nothing is judged that only the
daemon's user may see.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from runnerd import __version__
from runnerd.core.errors import ControlError
from runnerd.doctor.checks import Check, check_directory, check_disks, error, ok, unknown, warning
from runnerd.system.paths import Paths, resolve_paths

Look = Callable[[], Sequence[Check]]
UNITS = ("runnerd.service", "runnerd-spawner.service")
_LIMIT_S = 10.0
_SYSTEMD = "/run/systemd/system"  # there exactly where systemd is the service manager
_DAEMON = "runnerd"  # the user of the packaged service


def local_checks(environ: Mapping[str, str], *, error: ControlError, socket_path: str) -> list[Check]:
    """`error` is why the daemon's own doctor could not be asked."""
    systemd = os.path.isdir(_SYSTEMD)
    paths = installation(environ, root=os.geteuid() == 0, socket_path=socket_path)
    looks: dict[str, Look] = {}
    if systemd:
        looks["units"] = lambda: unit_checks(list_units)
    if paths is not None:
        looks |= {
            "configuration": lambda: [configuration_check(paths.config, environ)],
            "directories": lambda: directory_checks(paths),
            "disks": lambda: check_disks(state=paths.state, log=paths.log),
        }
    return [daemon_check(error, systemd=systemd), *take_all(looks, limit_s=_LIMIT_S)]


def installation(environ: Mapping[str, str], *, root: bool, socket_path: str) -> Paths | None:
    """The directories of the runnerd that should be at this socket; None where only itself knows them."""
    names = ("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")
    users = {name: environ[name] for name in names if name in environ}
    own, host = resolve_paths(environ=users, root=root), resolve_paths(environ={}, root=True)
    if socket_path == own.control_socket:
        return own if os.path.exists(own.config) or not os.path.exists(host.config) else host
    return host if socket_path == host.control_socket else None


def take_all(looks: Mapping[str, Look], *, limit_s: float) -> list[Check]:
    """What they find, each in a thread of its own: a dead file system must not hold up the others."""
    found: dict[str, Sequence[Check]] = {}

    def take(name: str, look: Look) -> None:
        try:
            found[name] = look()
        except Exception as why:
            found[name] = [unknown(name, f"cannot be told: the look itself failed: {type(why).__name__}: {why}")]

    threads = [threading.Thread(target=take, args=item, daemon=True) for item in looks.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit_s)
    late = [
        unknown("", f"cannot be told: looking has taken more than {limit_s:g} s", "look for what hangs: df, findmnt")
    ]
    return [check._replace(name=check.name or name) for name in looks for check in found.get(name, late)]


# --- the daemon and its units ---------------------------------------------------------------------------------


def daemon_check(why: ControlError, *, systemd: bool) -> Check:
    if why.status == 0:
        remedy = (
            "systemctl status runnerd" if systemd else "start it: runnerd says on its terminal what keeps it from it"
        )
        return error("runnerd", f"runnerd is not running: {str(why).partition(';')[0]}", remedy)
    if why.status == 404:
        detail = f"the runnerd that runs is older than this runnerctl ({__version__}) and has no doctor"
        return error("runnerd", detail, f"{'systemctl restart runnerd' if systemd else 'restart it'}: flows run on")
    return error("runnerd", f"the doctor of runnerd cannot be asked: {why}", "see journalctl -u runnerd")


def list_units() -> str:
    """What systemd says of our units, a paragraph each. Raises OSError and subprocess.SubprocessError."""
    argv = ["systemctl", "show", "--property=Id,LoadState,ActiveState,Result,ExecMainStatus,UnitFileState", *UNITS]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S / 2, check=True
    )
    return done.stdout


def unit_checks(listed: Callable[[], str]) -> list[Check]:
    try:
        text = listed()
    except subprocess.CalledProcessError as why:
        words = (why.stderr or "").strip().partition("\n")[0]
        return [unknown("units", f"systemctl show fails: {words}", "is dbus there? systemctl status dbus.socket")]
    except (OSError, subprocess.SubprocessError) as why:
        return [unknown("units", f"systemctl cannot be asked: {why}")]
    units = [dict(line.split("=", 1) for line in part.splitlines() if "=" in line) for part in text.split("\n\n")]
    return [unit_check(its) for its in units if its.get("Id") in UNITS]


def unit_check(its: Mapping[str, str]) -> Check:
    unit = its["Id"]
    short = unit.removesuffix(".service")
    state = its.get("ActiveState", "unknown")
    if its.get("LoadState") == "not-found":
        return warning(unit, "there is no such unit", "install the package, or start runnerd as this host does")
    if its.get("LoadState") not in ("loaded", None):
        return error(
            unit, f"its unit file is {its['LoadState']}", f"systemctl status {short} says why; systemctl unmask {short}"
        )
    if state == "failed":
        detail = f"failed: {_failure(its)}"
        return error(unit, detail, f"journalctl -u {short} -n 50 says why; then systemctl start runnerd")
    if state in ("activating", "deactivating", "reloading"):
        return warning(unit, f"is {state}", f"wait a moment; journalctl -u {short} says what for")
    if state == "inactive" and unit != UNITS[0]:
        return ok(unit, "is stopped, as it is while runnerd is")
    if state == "inactive":
        boot = (
            ""
            if its.get("UnitFileState") in ("enabled", "static")
            else f", and does not start at boot ({its.get('UnitFileState') or 'disabled'})"
        )
        remedy = "systemctl enable --now runnerd" if boot else "systemctl start runnerd"
        return warning(unit, f"is stopped{boot}", remedy)
    return ok(unit, f"is {state}")


def _failure(its: Mapping[str, str]) -> str:
    status = its.get("ExecMainStatus")
    if status == "78":
        return "its configuration cannot be used (exit status 78)"
    return f"{its.get('Result', 'unknown')}, exit status {status}"


# --- configuration, directories and disks ---------------------------------------------------------------------


def configuration_check(directory: str, environ: Mapping[str, str]) -> Check:
    from runnerd.config import HostDefaults, check

    name = "configuration"
    hidden = _hidden(directory)
    if hidden is not None and os.geteuid() != 0:
        return unknown(name, f"you may not read {hidden}, so it was not checked", "ask as root: sudo runnerctl doctor")
    defaults = HostDefaults(
        hostname=socket.gethostname(), python=sys.executable, api_url=environ.get("PREFECT_API_URL")
    )
    config, problems = check(directory, defaults=defaults)
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        fatal = "; runnerd does not start with it" if config is None else ""
        remedy = f"mend the files until runnerd check --config {directory} is content"
        return error(name, f"{problems[0]}{more}{fatal}", remedy)
    closed = _closed_to_daemon(directory)
    if closed is not None:
        return error(name, f"user {_DAEMON} cannot read {closed}", f"chgrp {_DAEMON} {closed} && chmod g+rX {closed}")
    return ok(name, f"{directory} is good")


def _files(directory: str) -> list[str]:
    """The directory, conf.d, and what of both is configuration."""
    found = [directory, os.path.join(directory, "runnerd.yaml"), os.path.join(directory, "conf.d")]
    try:
        found += [entry.path for entry in os.scandir(found[2]) if entry.name.endswith(".yaml")]
    except OSError:
        pass  # it is in the list, and what is wrong with it is found there
    return [path for path in found if os.path.lexists(path)]


def _hidden(directory: str) -> str | None:
    """The first part of the configuration that we may not read."""
    wanted = ((path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)) for path in _files(directory))
    return next((path for path, mode in wanted if not os.access(path, mode)), None)


def _closed_to_daemon(directory: str) -> str | None:
    """The first part of it that the daemon's user may not read, by its mode; None also where there is no such user."""
    try:
        user = pwd.getpwnam(_DAEMON)
    except KeyError:
        return None
    if os.geteuid() != 0 or directory != resolve_paths(environ={}, root=True).config:
        return None
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    return next((path for path in _files(directory) if not may_read(os.stat(path), user.pw_uid, groups)), None)


def may_read(about: os.stat_result, uid: int, gids: Sequence[int]) -> bool:
    """Whether this user may read the file, or list and enter the directory."""
    shift = 6 if about.st_uid == uid else 3 if about.st_gid in gids else 0
    wanted = 0o5 if about.st_mode & 0o170000 == 0o040000 else 0o4
    return uid == 0 or (about.st_mode >> shift) & wanted == wanted


def directory_checks(paths: Paths) -> list[Check]:
    """Whether they are there; whether the daemon may write in them we can tell only where we are its user."""
    found = []
    for name, path in (("state directory", paths.state), ("log directory", paths.log)):
        check = check_directory(name, path, user=_DAEMON, write=False)
        exists = os.path.isdir(path)
        found.append(ok(name, f"{path} is there") if exists else check)
    return found
