"""Looks at the machine: the service manager, users, directories, files and disks."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from runnerd.config.files import DROP_INS, MAIN, list_drop_ins
from runnerd.core.units import format_duration
from runnerd.doctor.checks import Check, directory_check, disk_checks, error, ok, some, unreadable, warning
from runnerd.doctor.look import in_thread
from runnerd.doctor.subject import Subject
from runnerd.launch.api_access import CREDENTIAL
from runnerd.system.directories import runs_dir
from runnerd.system.paths import Paths
from runnerd.system.run_program import ProgramResult, run_program
from runnerd.system.systemd import LIST_JOBS, own_unit

# --- the service manager --------------------------------------------------------------------------------------


async def look_at_systemd(subject: Subject) -> Sequence[Check]:
    if not subject.systemd.present:
        return [ok("dbus", "not needed: runnerd was not started by systemd")]
    found = ok("dbus", "not needed: runnerd.service says before a stop whether it is one")
    if not subject.systemd.told_jobs:
        found = await dbus_check(run_program, unit=own_unit())
    watchdog_s = subject.systemd.watchdog_s()
    if watchdog_s is not None:
        return [found, ok("watchdog", f"systemd restarts runnerd when it is stuck for {format_duration(watchdog_s)}")]
    remedy = "systemctl edit runnerd, and write [Service] and WatchdogSec=60s into it"
    return [found, warning("watchdog", "systemd does not watch runnerd: one that is stuck stays stuck", remedy)]


async def dbus_check(run: Callable[..., Awaitable[ProgramResult]], *, unit: str | None) -> Check:
    """Whether a SIGTERM of `systemctl stop` can be told from one of `systemctl restart`."""
    ran = await run(*LIST_JOBS)
    if ran.status == 0 and unit is not None:
        return ok("dbus", "systemctl list-jobs answers, so a stop can be told from a restart")
    why = ran.err.strip().partition("\n")[0] or f"exit status {ran.status}"
    detail = f"systemctl list-jobs fails ({why})" if ran.status != 0 else "runnerd is in no unit's cgroup"
    remedy = "install and start dbus: apt install dbus, then systemctl start dbus.socket"
    if ran.status == 0:
        remedy = "start runnerd by its unit: systemctl start runnerd"
    return error("dbus", f"{detail}: `systemctl stop runnerd` reads as a restart, and flows are not drained", remedy)


# --- users ----------------------------------------------------------------------------------------------------


async def look_at_users(subject: Subject) -> Sequence[Check]:
    wanted: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    for source in subject.sources():
        run = source.run
        if run.user is not None:
            wanted.setdefault(run.user, []).append(source.name)
        if run.group is not None:
            groups.setdefault(run.group, []).append(source.name)
    flow_user = subject.environ.get("RUNNERD_FLOW_USER")
    return [await in_thread(lambda: users_check(wanted, groups, flow_user))]


def users_check(users: Mapping[str, list[str]], groups: Mapping[str, list[str]], flow_user: str | None) -> Check:
    """Whether the users and groups that flows run as exist; of each, the deployments that name it."""
    missing = [f"user {name} (run.user of {some(of)})" for name, of in users.items() if not _exists(pwd.getpwnam, name)]
    missing += [
        f"group {name} (run.group of {some(of)})" for name, of in groups.items() if not _exists(grp.getgrnam, name)
    ]
    if flow_user is not None and flow_user not in users and not _exists(pwd.getpwnam, flow_user):
        missing.append(f"user {flow_user} (RUNNERD_FLOW_USER, who runs flows without run.user)")
    if missing:
        remedy = "make them, as with useradd --system, or name others in run.user and run.group"
        return error("users", f"there is no {', no '.join(missing)}: their flows cannot start", remedy)
    names = sorted({*users, *([flow_user] if flow_user else [])})
    return ok("users", f"flows run as {', '.join(names)}" if names else "flows run as the spawner's user")


def _exists(look: Callable[[str], object], name: str) -> bool:
    try:
        look(name)
    except KeyError:
        return False
    return True


# --- directories, files and disks -----------------------------------------------------------------------------


async def look_at_directories(subject: Subject) -> Sequence[Check]:
    return await in_thread(lambda: directory_checks(subject.paths, _me()))


def directory_checks(paths: Paths, user: str) -> list[Check]:
    return [
        directory_check("state directory", paths.state, user=user, write=True),
        directory_check("log directory", runs_dir(paths), user=user, write=True),
        directory_check("runtime directory", paths.runtime, user=user, write=True),
    ]


async def look_at_config_files(subject: Subject) -> Sequence[Check]:
    return [await in_thread(lambda: config_check(subject.paths.config, _me()))]


def config_check(directory: str, user: str) -> Check:
    """Whether runnerd.yaml and every drop-in can be read, or the next reload will do without them."""
    name = "configuration files"
    for place in (directory, os.path.join(directory, DROP_INS)):
        found = directory_check(name, place, user=user, write=False)
        if found.state != "ok" and (place == directory or os.path.exists(place)):
            return found
    paths = [os.path.join(directory, MAIN), *list_drop_ins(directory).paths]
    closed = unreadable(paths)
    if not closed:
        count = sum(map(os.path.exists, paths))
        return ok(name, f"user {user} can read {count} {'file' if count == 1 else 'files'} in {directory}")
    others = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
    group = _group_of(user)
    detail = f"user {user} cannot read {closed[0]}{others}: what is in it has no effect"
    return error(name, detail, f"chgrp {group} {closed[0]} && chmod g+r {closed[0]}")


async def look_at_credentials(subject: Subject) -> Sequence[Check]:
    api = subject.config.current.settings.api
    files = [path for path in (api.key_file, api.auth_string_file) if path is not None]
    given = subject.paths.credentials
    if not files and given is not None:
        credential = os.path.join(given, CREDENTIAL)
        files = await in_thread(lambda: [credential] if os.path.exists(credential) else [])
    variables = [name for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING") if subject.environ.get(name)]
    if not files:
        words = f"from {' and '.join(variables)}" if variables else "none: the API is asked without"
        return [ok("credentials", words)]
    return [await in_thread(lambda: credentials_check(files, _me()))]


def credentials_check(files: Iterable[str], user: str) -> Check:
    """Whether each file can be read by us and not by everybody."""
    opened = list(files)
    for path in opened:
        try:
            with open(path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
        except OSError as why:
            group = _group_of(user)
            remedy = f"see namei -l {path}; for root's file: chgrp {group} {path} && chmod 640 {path}"
            return error("credentials", f"user {user} cannot read {path}: {why.strerror}", remedy)
        if mode & stat.S_IROTH:
            detail = f"everybody on this host can read {path}, and act as runnerd in Prefect"
            return warning("credentials", detail, f"chmod o-rwx {path}")
    return ok("credentials", f"read from {' and '.join(opened)}")


async def look_at_disks(subject: Subject) -> Sequence[Check]:
    return await in_thread(lambda: disk_checks(state=subject.paths.state, log=subject.paths.log))


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group_of(user: str) -> str:
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user
