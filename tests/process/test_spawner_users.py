"""Whose processes a spawner starts: with --users those it was told, and them in no group but their own."""

from __future__ import annotations

import os
import pwd

import pytest

from runnerd.processes.protocol import Record
from runnerd.spawner.child.account import AllowedUsers, SetupFailed
from tests.kits.spawner import SpawnerUnderTest, needs_root, needs_system_python

NOBODY = pwd.getpwnam("nobody")
NO_USER = (
    "cannot start: no user is named, and runs may not use the spawner's own; set run.user or RUNNERD_FLOW_USER"
    " (systemctl edit runnerd)"
)


def not_allowed(user: str) -> str:
    name_it = "add the name to RUNNERD_FLOW_USERS (systemctl edit runnerd-spawner)"
    return f"cannot start: the spawner may not start runs as user {user}; {name_it}"


async def answer(spawner: SpawnerUnderTest, **settings: object) -> Record:
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", "/bin/true", **settings))
        return await link.until("run", "exited")


@needs_root
@needs_system_python
@pytest.mark.parametrize("users", ["*", "nobody", "daemon, nobody", "*,root"])
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
async def test_a_group_that_is_not_the_users(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start("--users", "*")
    record = await answer(idle_spawner, user="nobody", group="root")
    assert record.error is not None
    message = "cannot start: user nobody is not in group root (usermod -aG root nobody)"
    assert (record.error.stage, record.error.message) == ("group", message)
    assert not (idle_spawner.home / "run.out").exists()


@needs_root
@needs_system_python
async def test_a_group_of_the_users(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start("--users", "*")
    assert (await answer(idle_spawner, user="nobody", group="nogroup")).error is None


async def test_a_user_that_is_not_there(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start("--users", "*")
    record = await answer(idle_spawner, user="no-such-user")
    assert record.error is not None
    assert record.error.message == "cannot start: no such user no-such-user"


def test_another_name_of_root() -> None:
    """What a name stands for is known once it was looked up."""

    class Toor:
        name, uid, gid, primary_gid = "toor", 0, 0, 0

    with pytest.raises(SetupFailed, match="may not start runs as user toor"):
        AllowedUsers("*").check_account(Toor())  # type: ignore[arg-type]
    AllowedUsers(None).check_account(Toor())  # type: ignore[arg-type]


async def test_without_the_option_whoever_asks_decides(spawner: SpawnerUnderTest) -> None:
    record = await answer(spawner)
    assert record.error is None
    assert record.user is None
    assert os.stat(spawner.home / "run.out").st_uid == os.geteuid()
