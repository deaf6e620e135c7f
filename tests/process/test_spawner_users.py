"""Whose processes a spawner starts: with --users those it was told, and them in no group but their own."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from runnerd.processes.protocol import Record
from runnerd.spawner.child.users import AllowedUsers, read_uid_min
from tests.kits.spawner import SpawnerUnderTest, needs_root, needs_system_python

LIST = "RUNNERD_FLOW_USERS (systemctl edit runnerd-spawner; without systemd: the environment of runnerd)"
NO_USER = (
    "cannot start: no user is named, and runs may not use the spawner's own; set run.user or RUNNERD_FLOW_USER"
) + (f"; for root write run.user: root, and add root to {LIST}" if os.geteuid() == 0 else "")


def not_allowed(user: str) -> str:
    return f"cannot start: the spawner may not start runs as user {user}; add the name to {LIST}"


async def answer(spawner: SpawnerUnderTest, **settings: object) -> Record:
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", "/bin/true", **{"own": False, **settings}))
        return await link.until("run", "exited")


@needs_root
@needs_system_python
@pytest.mark.parametrize("users", ["nobody", "daemon, nobody", "*,nobody"])
async def test_a_user_that_may_be(idle_spawner: SpawnerUnderTest, users: str) -> None:
    idle_spawner.start("--users", users)
    record = await answer(idle_spawner, user="nobody")
    assert record.error is None
    assert record.exit is not None
    assert record.exit.code == 0


@needs_root
@pytest.mark.parametrize("users", ["root", "*,root"])
async def test_root_where_it_is_named(idle_spawner: SpawnerUnderTest, users: str) -> None:
    idle_spawner.start("--users", users)
    assert (await answer(idle_spawner, user="root")).error is None


@pytest.mark.parametrize(
    ("users", "user", "message"),
    [
        ("*", None, NO_USER),
        ("root", None, NO_USER),
        ("*", "root", not_allowed("root")),
        ("daemon,bin", "nobody", not_allowed("nobody")),
        ("", "nobody", not_allowed("nobody")),
    ],
)
async def test_refused_before_there_is_a_process(
    idle_spawner: SpawnerUnderTest, users: str, user: str | None, message: str
) -> None:
    idle_spawner.start("--users", users)
    record = await answer(idle_spawner, user=user)
    assert record.error is not None
    assert (record.error.stage, record.error.message) == ("user", message)
    assert record.identity is None
    assert not (idle_spawner.home / "run.out").exists()
    idle_spawner.end()
    idle_spawner.start("--users", users)

    async def replayed() -> Record:
        async with idle_spawner.link() as link:
            return link.replayed["run", 0]

    assert await replayed() == record


@needs_root
@pytest.mark.parametrize("users", [("--users", "nobody"), ()], ids=["listed", "no list"])
async def test_a_group_that_is_not_the_users(idle_spawner: SpawnerUnderTest, users: tuple[str, ...]) -> None:
    idle_spawner.start(*users, listed=False)
    record = await answer(idle_spawner, user="nobody", group="root")
    assert record.error is not None
    message = "cannot start: user nobody is not in group root (usermod -aG root nobody)"
    assert (record.error.stage, record.error.message) == ("group", message)
    assert not (idle_spawner.home / "run.out").exists()


@needs_root
@needs_system_python
async def test_a_group_of_the_users(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start("--users", "nobody")
    assert (await answer(idle_spawner, user="nobody", group="nogroup")).error is None


async def test_a_user_that_is_not_there(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start("--users", "*")
    record = await answer(idle_spawner, user="no-such-user")
    assert record.error is not None
    assert record.error.message == "cannot start: no such user no-such-user"


@needs_root
@pytest.mark.parametrize("user", ["nobody", "daemon"])
async def test_the_star_is_for_people(idle_spawner: SpawnerUnderTest, user: str) -> None:
    idle_spawner.start("--users", "*")
    record = await answer(idle_spawner, user=user)
    assert record.error is not None
    refused = not_allowed(user).replace("runs as user", "runs as a system account that is not named,")
    assert (record.error.stage, record.error.message) == ("user", refused)
    assert not (idle_spawner.home / "run.out").exists()


LOGIN_DEFS = "# UID_MIN 7\nUID_MIN\t\t 500\nUID_MAX 60000\n"


@pytest.mark.parametrize(
    ("text", "uid", "allowed"),
    [
        ("*", 500, True),
        ("*", 1000, True),
        ("*", 1_500_000_000, True),  # a directory server's
        ("*", 499, False),
        ("*", 0, False),
        ("*", 777, False),  # the daemon's
        ("*", 61184, False),  # DynamicUser=
        ("*", 65534, False),  # nobody
        ("*,x", 0, True),
        ("x", 777, True),
        ("y", 1000, False),
        (None, 998, True),
        (None, 0, False),
    ],
)
def test_what_a_name_stands_for(tmp_path: Path, text: str | None, uid: int, allowed: bool) -> None:
    """Another name of root, say: that is known once it was looked up."""
    defs = tmp_path / "login.defs"
    defs.write_text(LOGIN_DEFS)
    users = AllowedUsers(text, root=True, owner=777, login_defs=str(defs))
    assert (users.refuse_name("x") is None and users.refuse_account("x", uid) is None) is allowed
    again = AllowedUsers.from_wire(users.to_wire())
    assert again.to_wire() == users.to_wire()


@pytest.mark.parametrize("text", ["", "UID_MIN\n", "UID_MIN much\n", None])
def test_login_defs_without_the_word(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "login.defs"
    if text is not None:
        path.write_text(text)
    assert read_uid_min(str(path)) == 1000


# --- a spawner without a list -----------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize(("user", "message"), [(None, NO_USER), ("root", not_allowed("root"))])
async def test_root_starts_nothing_as_root_unless_two_places_say_so(
    idle_spawner: SpawnerUnderTest, user: str | None, message: str
) -> None:
    idle_spawner.start(listed=False)
    record = await answer(idle_spawner, user=user)
    assert record.error is not None
    assert (record.error.stage, record.error.message) == ("user", message)
    assert not (idle_spawner.home / "run.out").exists()


@needs_root
@needs_system_python
async def test_root_starts_any_other_user_that_is_named(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start(listed=False)
    assert (await answer(idle_spawner, user="nobody")).error is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root needs a name")
async def test_without_root_runs_have_the_spawners_user(spawner: SpawnerUnderTest) -> None:
    record = await answer(spawner)
    assert record.error is None
    assert record.user is None
    assert os.stat(spawner.home / "run.out").st_uid == os.geteuid()


# --- a process of the daemon's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [(), ("--users", "daemon")])
async def test_the_daemons_own_process_is_the_daemons_user(idle_spawner: SpawnerUnderTest, users: tuple[str]) -> None:
    """Its Prefect server: no flow, and a daemon that is the spawner's user gains nothing."""
    idle_spawner.start("--owner", str(os.geteuid()), *users)
    record = await answer(idle_spawner, own=True, user=pwd.getpwuid(os.geteuid()).pw_name)
    assert record.error is None
    assert os.stat(idle_spawner.home / "run.out").st_uid == os.geteuid()


@needs_root
@pytest.mark.parametrize(
    ("owner", "user", "message"),
    [
        ("0", "nobody", "cannot start as user nobody: not the daemon's"),
        ("65534", "root", not_allowed("root")),
        ("65534", "nobody", not_allowed("nobody")),
        ("65534", None, NO_USER),
    ],
)
async def test_own_makes_nobody_root(
    idle_spawner: SpawnerUnderTest, owner: str, user: str | None, message: str
) -> None:
    idle_spawner.start("--owner", owner, "--users", "daemon")
    record = await answer(idle_spawner, own=True, user=user)
    assert record.error is not None
    assert record.error.message == message
