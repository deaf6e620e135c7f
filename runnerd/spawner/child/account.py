"""Find the user and groups of a run, check that the spawner may start runs as them, and switch to them.

`--users` limits what a compromised daemon can do: without it, a client of a root spawner can start processes as any
user. Checks that need no name service are done before the fork: a directory server (LDAP, NIS) that does not answer
must block one child, and not the spawner.
"""

from __future__ import annotations

import grp
import os
import pwd

from runnerd.spawner.io.messages import Launch


class SetupFailed(Exception):
    """A run cannot start; `stage` is the step that failed, the message one sentence an administrator can act on."""

    def __init__(self, stage: str, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.errno = number


class AllowedUsers:
    """The users as which runs may be started, from `--users`: names, `*` for every uid but 0. None: all users."""

    __slots__ = ("_all_but_root", "_limited", "_names")

    def __init__(self, text: str | None) -> None:
        self._limited = text is not None
        names = {name.strip() for name in (text or "").split(",")} - {""}
        self._all_but_root = "*" in names
        self._names = names - {"*"}

    def check_name(self, user: str | None) -> None:
        """Check the name only, without the name service. Raises SetupFailed."""
        if not self._limited:
            return
        if user is None:
            message = "cannot start: no user is named, and runs may not use the spawner's own; set run.user"
            raise SetupFailed("user", f"{message} or RUNNERD_FLOW_USER (systemctl edit runnerd)")
        if user not in self._names and (user == "root" or not self._all_but_root):
            raise _not_allowed(user)

    def check_account(self, account: RunAccount) -> None:
        """Check what the name service says of a user: its uid and groups. Raises SetupFailed."""
        if not self._limited:
            return
        if account.uid == 0 and account.name not in self._names:
            raise _not_allowed(account.name)
        if account.gid not in os.getgrouplist(account.name, account.primary_gid):
            group = grp.getgrgid(account.gid).gr_name
            message = f"cannot start: user {account.name} is not in group {group} (usermod -aG {group} {account.name})"
            raise SetupFailed("group", message)


def _not_allowed(user: str) -> SetupFailed:
    message = f"cannot start: the spawner may not start runs as user {user}; add the name to RUNNERD_FLOW_USERS"
    return SetupFailed("user", f"{message} (systemctl edit runnerd-spawner)")


class RunAccount:
    """The user and groups a run gets."""

    __slots__ = ("gid", "groups", "name", "primary_gid", "uid")

    def __init__(self, *, name: str, uid: int, gid: int, primary_gid: int) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.primary_gid = primary_gid
        # Looked up before the rlimits are set: the run's limit of open files may be too low for the name service.
        self.groups = os.getgrouplist(name, gid)


def find_account(launch: Launch, users: AllowedUsers) -> RunAccount | None:
    """Look up the run's user and group; None for a run as the spawner's own user. Raises SetupFailed."""
    if launch.user is None and launch.group is None:
        return None
    own = os.geteuid()
    try:
        entry = pwd.getpwuid(own) if launch.user is None else pwd.getpwnam(launch.user)
    except KeyError:
        raise SetupFailed("user", f"cannot start: no such user {launch.user or own}") from None
    try:
        gid = entry.pw_gid if launch.group is None else grp.getgrnam(launch.group).gr_gid
    except KeyError:
        raise SetupFailed("group", f"cannot start: no such group {launch.group}") from None
    if own != 0 and entry.pw_uid != own:
        message = f"cannot start as user {launch.user}: the spawner does not run as root"
        raise SetupFailed("user", message)
    if own != 0 and gid != os.getegid():
        raise SetupFailed("group", f"cannot start as group {launch.group}: the spawner does not run as root")
    account = RunAccount(name=entry.pw_name, uid=entry.pw_uid, gid=gid, primary_gid=entry.pw_gid)
    users.check_account(account)
    return account


def switch_to(account: RunAccount) -> None:
    """Set this process's groups, gid and uid, for ever. Raises SetupFailed."""
    try:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        message = f"cannot start as user {account.name}: {error.strerror}"
        raise SetupFailed("user", message, error.errno) from None
