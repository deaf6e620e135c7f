"""Find the user and groups of a run, check that the spawner may start runs as them, and switch to them.

Checks that need no name service are done before the fork: a directory server (LDAP, NIS) that does not answer must
block one child, and not the spawner.
"""

from __future__ import annotations

import grp
import os
import pwd

from runnerd.spawner.child.users import AllowedUsers
from runnerd.spawner.io.messages import Launch


class SetupFailed(Exception):
    """A run cannot start; `stage` is the step that failed, the message one sentence an administrator can act on."""

    def __init__(self, stage: str, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage
        self.errno = number


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


class Privileges:
    """Whether the spawner is root, which uid owns the output files, and as which users it may start runs."""

    __slots__ = ("owner", "root", "users")

    def __init__(self, *, owner: int | None, users: AllowedUsers) -> None:
        self.root = os.geteuid() == 0
        self.owner = owner
        self.users = users

    def check_name(self, launch: Launch) -> None:
        """Check the name of the run's user, without the name service. Raises SetupFailed."""
        if not self._is_daemons_own(launch):
            _raise("user", self.users.refuse_name(launch.user))

    def check_account(self, launch: Launch, account: RunAccount) -> None:
        """Check what the name service says of the run's user: its uid and groups. Raises SetupFailed."""
        if self._is_daemons_own(launch):
            refused = None if account.uid == os.geteuid() else f"cannot start as user {account.name}: not the daemon's"
            _raise("user", refused)
            return
        _raise("user", self.users.refuse_account(launch.user or account.name, account.uid))
        if (self.users.limited or self.root) and account.gid not in os.getgrouplist(account.name, account.primary_gid):
            group = grp.getgrgid(account.gid).gr_name
            advice = f"usermod -aG {group} {account.name}"
            _raise("group", f"cannot start: user {account.name} is not in group {group} ({advice})")

    def _is_daemons_own(self, launch: Launch) -> bool:
        """Whether this is a process of the daemon and not of a flow, and the daemon runs as the spawner's own user.

        Such a daemon gains nothing here. Any other may not choose the spawner's user in this way.
        """
        return launch.own and self.owner in (None, os.geteuid())


def _raise(stage: str, refused: str | None) -> None:
    if refused is not None:
        raise SetupFailed(stage, refused)


def find_account(launch: Launch, privileges: Privileges) -> RunAccount | None:
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
    privileges.check_account(launch, account)
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
