"""Who a run is: its user and groups, and whether the spawner may start anything as them.

The policy (`--users`) is what bounds a daemon that was taken over: without it, whoever speaks to a spawner that is root
can be anybody. What can be said without the name service is said before the fork: a directory server that does not
answer must hold up one child, and not the spawner.
"""

from __future__ import annotations

import grp
import os
import pwd

from runnerd.spawner.io.messages import Launch


class SetupFailed(Exception):
    """Why a run cannot start: the stage, and one sentence an administrator can act on."""

    def __init__(self, stage: str, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.errno = number


class Users:
    """Those whose processes may be started, from `--users`: names, and `*` for anybody but uid 0. None: no bounds."""

    __slots__ = ("_anybody", "_names", "bounded")

    def __init__(self, text: str | None) -> None:
        self.bounded = text is not None
        names = {name.strip() for name in (text or "").split(",")} - {""}
        self._anybody = "*" in names
        self._names = names - {"*"}

    def check_name(self, user: str | None) -> None:
        """All that can be said without looking it up. Raises SetupFailed."""
        if not self.bounded:
            return
        if user is None:
            message = "cannot start: no user is named, and the spawner's own is not to be used; set run.user"
            raise SetupFailed("user", f"{message} or RUNNERD_FLOW_USER (systemctl edit runnerd)")
        if user not in self._names and (user == "root" or not self._anybody):
            raise _not_allowed(user)

    def check(self, account: Account) -> None:
        """Raises SetupFailed."""
        if not self.bounded:
            return
        if account.uid == 0 and account.name not in self._names:
            raise _not_allowed(account.name)
        if account.gid not in os.getgrouplist(account.name, account.primary_gid):
            group = grp.getgrgid(account.gid).gr_name
            message = f"cannot start: user {account.name} is not in group {group} (usermod -aG {group} {account.name})"
            raise SetupFailed("group", message)


def _not_allowed(user: str) -> SetupFailed:
    message = f"cannot start: the spawner may start nothing as user {user}; name it in RUNNERD_FLOW_USERS"
    return SetupFailed("user", f"{message} (systemctl edit runnerd-spawner)")


class Account:
    __slots__ = ("gid", "groups", "name", "primary_gid", "uid")

    def __init__(self, *, name: str, uid: int, gid: int, primary_gid: int) -> None:
        self.name = name
        self.uid = uid
        self.gid = gid
        self.primary_gid = primary_gid
        # Looked up now: later the limits on open files may be too low for the name service.
        self.groups = os.getgrouplist(name, gid)


def find_account(launch: Launch, users: Users) -> Account | None:
    """None for a run that stays what the spawner is. Raises SetupFailed."""
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
        message = f"cannot become user {launch.user}: the spawner does not run as root"
        raise SetupFailed("user", message)
    if own != 0 and gid != os.getegid():
        raise SetupFailed("group", f"cannot become group {launch.group}: the spawner does not run as root")
    account = Account(name=entry.pw_name, uid=entry.pw_uid, gid=gid, primary_gid=entry.pw_gid)
    users.check(account)
    return account


def become(account: Account) -> None:
    try:
        os.setgroups(account.groups)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        message = f"cannot become user {account.name}: {error.strerror}"
        raise SetupFailed("user", message, error.errno) from None
