"""Checks the machine: the service manager, users, directories, files and disks."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from runnerd.config.files import DROP_INS, MAIN, list_drop_ins
from runnerd.core.names import some
from runnerd.core.place import Problem
from runnerd.core.settings import ControlSettings
from runnerd.core.units import format_duration
from runnerd.doctor.checks import Check, check_directory, check_disks, error, ok, unreadable, warning
from runnerd.doctor.subject import Source, Subject
from runnerd.launch.api_access import CREDENTIAL
from runnerd.spawner.child.users import AllowedUsers
from runnerd.system.directories import runs_dir
from runnerd.system.paths import Paths
from runnerd.system.run_program import ProgramResult, run_program
from runnerd.system.systemd import LIST_JOBS, own_unit
from runnerd.system.threads import in_thread

# --- the service manager --------------------------------------------------------------------------------------


async def run_systemd_checks(subject: Subject) -> Sequence[Check]:
    if not subject.systemd.present:
        return [ok("dbus", "not needed: runnerd was not started by systemd")]
    found = ok("dbus", "not needed: runnerd.service records systemd's jobs before a stop")
    if not subject.systemd.has_jobs_file:
        found = await check_dbus(run_program, unit=own_unit())
    watchdog_s = subject.systemd.watchdog_s()
    if watchdog_s is not None:
        return [found, ok("watchdog", f"systemd restarts runnerd when it is stuck for {format_duration(watchdog_s)}")]
    remedy = "set WatchdogSec=60s in section [Service]: systemctl edit runnerd"
    return [found, warning("watchdog", "no watchdog is set: systemd does not restart runnerd when it is stuck", remedy)]


async def check_dbus(run: Callable[..., Awaitable[ProgramResult]], *, unit: str | None) -> Check:
    """Check that runnerd can distinguish the SIGTERM of `systemctl stop` from that of `systemctl restart`."""
    ran = await run(*LIST_JOBS)
    if ran.status == 0 and unit is not None:
        return ok("dbus", "systemctl list-jobs answers, so runnerd can distinguish a stop from a restart")
    why = ran.err.strip().partition("\n")[0] or f"exit status {ran.status}"
    detail = f"systemctl list-jobs fails ({why})" if ran.status != 0 else "runnerd is in no unit's cgroup"
    remedy = "install and start dbus: apt install dbus, then systemctl start dbus.socket"
    if ran.status == 0:
        remedy = "start runnerd by its unit: systemctl start runnerd"
    effect = "systemctl stop runnerd is handled as a restart and does not drain"
    return error("dbus", f"cannot distinguish a stop from a restart: {detail}; {effect}", remedy)


# --- users ----------------------------------------------------------------------------------------------------

_IDENTITY = ("run.user", "run.group")


async def run_user_checks(subject: Subject) -> Sequence[Check]:
    sources, flow_user = subject.sources(), subject.environ.get("RUNNERD_FLOW_USER") or None
    allowed = subject.wanted_spawner.users_of(subject.link.hello)
    unusable = [problem for problem in subject.config.problems() if problem.key in _IDENTITY]
    control = subject.config.current.settings.control
    return [
        await in_thread(lambda: check_users(sources, flow_user, allowed, unusable)),
        await in_thread(lambda: check_control_groups(control)),
    ]


def check_users(
    sources: Sequence[Source], flow_user: str | None, allowed: AllowedUsers | None, unusable: Sequence[Problem] = ()
) -> Check:
    """Check that the users and groups of runs exist, and that the spawner starts runs as these users.

    `allowed` is None where the spawner does not say. `unusable`: the problems of users and groups for which the
    configuration refused deployments and pools, which are therefore not among `sources`.
    """
    if unusable:
        return _report_unusable(unusable)
    users: dict[str | None, list[Source]] = {}
    groups: dict[str, list[Source]] = {}
    for source in sources:
        users.setdefault(source.run.user, []).append(source)
        if source.run.group is not None:
            groups.setdefault(source.run.group, []).append(source)
    named = {name: of for name, of in users.items() if name is not None}
    missing = [f"user {name} (run.user of {_names(of)})" for name, of in named.items() if _uid_of(name) is None]
    missing += [
        f"group {name} (run.group of {_names(of)})" for name, of in groups.items() if not _exists(grp.getgrnam, name)
    ]
    if flow_user is not None and flow_user not in users and _uid_of(flow_user) is None:
        missing.append(f"user {flow_user} (RUNNERD_FLOW_USER, for flows without run.user)")
    if missing:
        remedy = "create them, for example with useradd --system, or set others in run.user and run.group"
        return error("users", f"cannot start flows: there is no {', no '.join(missing)}", remedy)
    refused = None if allowed is None else _refuse(users, allowed)
    if refused is not None:
        return refused
    rooted = [source for user, of in users.items() if _uid_of(user or "") == 0 for source in of]
    if rooted and allowed is not None and allowed.offers_others:
        detail = f"flows of {_names(rooted)} run as root: their code may change anything on this host"
        return warning("users", detail, "set run.user, or RUNNERD_FLOW_USER for all flows, to a user without rights")
    names = sorted({*named, *([flow_user] if flow_user else [])})
    return ok("users", f"flows run as {', '.join(names)}" if names else "flows run as the spawner's user")


def _report_unusable(unusable: Sequence[Problem]) -> Check:
    # A wrong user in the host's run: section is a problem of each deployment.
    different = list(dict.fromkeys(map(str, unusable)))
    why, _, remedy = different[0].partition("; ")
    more = f"; and {len(different) - 1} more, which runnerctl config check lists" if len(different) > 1 else ""
    return error("users", f"{why}{more}", remedy or "create it with useradd --system or groupadd, or set another")


def _refuse(users: Mapping[str | None, list[Source]], allowed: AllowedUsers) -> Check | None:
    for user, of in users.items():
        refused = allowed.refuse_name(user)
        if refused is None and user is not None:
            refused = allowed.refuse_account(user, _uid_of(user) or 0)
        if refused is not None:
            why, _, remedy = refused.removeprefix("cannot start: ").partition("; ")
            where = some([source.where for source in of])
            return error("users", f"cannot start flows of {where}: {why}", f"{remedy}; or set another run.user")
    return None


def _names(sources: Sequence[Source]) -> str:
    return some([source.name for source in sources])


def check_control_groups(control: ControlSettings) -> Check:
    """Check that the groups of `control:` exist; a group that does not exist permits nothing to anybody."""
    if not control.narrowed:
        return ok("control", "every user who can open the control socket may make every request")
    missing = [
        f"{name} (control.{key})"
        for key, names in control.lists().items()
        for name in names
        if not _exists(grp.getgrnam, name)
    ]
    if missing:
        detail = f"there is no group {', no group '.join(missing)}; nobody gets what these groups may do"
        return warning("control", detail, "create them with groupadd, or correct control: in runnerd.yaml")
    return ok("control", "requests are permitted as control: in runnerd.yaml says")


def _uid_of(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        return None


def _exists(find: Callable[[str], object], name: str) -> bool:
    try:
        find(name)
    except (KeyError, ValueError):
        return False
    return True


# --- directories, files and disks -----------------------------------------------------------------------------


async def run_directory_checks(subject: Subject) -> Sequence[Check]:
    return await in_thread(lambda: check_directories(subject.paths, _own_user()))


def check_directories(paths: Paths, user: str) -> list[Check]:
    return [
        check_directory("state directory", paths.state, user=user, write=True),
        check_directory("log directory", runs_dir(paths), user=user, write=True),
        check_directory("runtime directory", paths.runtime, user=user, write=True),
    ]


async def run_config_file_checks(subject: Subject) -> Sequence[Check]:
    return [await in_thread(lambda: check_config_files(subject.paths.config, _own_user()))]


def check_config_files(directory: str, user: str) -> Check:
    """Check that runnerd.yaml and every drop-in are readable; a reload ignores an unreadable one."""
    name = "configuration files"
    for place in (directory, os.path.join(directory, DROP_INS)):
        found = check_directory(name, place, user=user, write=False)
        if found.state != "ok" and (place == directory or os.path.exists(place)):
            return found
    paths = [os.path.join(directory, MAIN), *list_drop_ins(directory).paths]
    closed = unreadable(paths)
    if not closed:
        count = sum(map(os.path.exists, paths))
        return ok(name, f"user {user} can read {count} {'file' if count == 1 else 'files'} in {directory}")
    others = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
    group = _group_of(user)
    detail = f"user {user} cannot read {closed[0]}{others}: permission denied; its settings have no effect"
    return error(name, detail, f"chgrp {group} {closed[0]} && chmod g+r {closed[0]}")


async def run_credentials_checks(subject: Subject) -> Sequence[Check]:
    api = subject.config.current.settings.api
    files = [path for path in (api.key_file, api.auth_string_file) if path is not None]
    given = subject.paths.credentials
    if not files and given is not None:
        credential = os.path.join(given, CREDENTIAL)
        files = await in_thread(lambda: [credential] if os.path.exists(credential) else [])
    variables = [name for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING") if subject.environ.get(name)]
    if not files:
        words = f"from {' and '.join(variables)}" if variables else "none: requests to the API carry no credentials"
        return [ok("credentials", words)]
    return [await in_thread(lambda: check_credentials(files, _own_user()))]


def check_credentials(files: Iterable[str], user: str) -> Check:
    """Check that this process can read each file and that other users cannot."""
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
            detail = f"every user of this host can read {path}, and so use runnerd's access to Prefect"
            return warning("credentials", detail, f"chmod o-rwx {path}")
    return ok("credentials", f"read from {' and '.join(opened)}")


async def run_disk_checks(subject: Subject) -> Sequence[Check]:
    return await in_thread(lambda: check_disks(state=subject.paths.state, log=subject.paths.log))


def _own_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group_of(user: str) -> str:
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user
