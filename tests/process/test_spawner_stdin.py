"""What a process reads as its standard input: nothing, or the file that its launch spec names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runnerd.processes.protocol import Record
from tests.kits.spawner import SpawnerUnderTest, needs_root
from tests.process.test_spawner_end import end_of

READ = ("/bin/sh", "-c", "cat; readlink /proc/self/fd/0 >&2")


async def read(spawner: SpawnerUnderTest, path: Path | None, **settings: object) -> Record:
    stdin = None if path is None else str(path)
    return await end_of(spawner, spawner.spec("run", *READ, stdin=stdin, **settings))


async def test_nothing_is_read_unless_a_file_is_named(spawner: SpawnerUnderTest) -> None:
    await read(spawner, None)
    assert spawner.output("run") == "/dev/null\n"


async def test_the_file_is_read(spawner: SpawnerUnderTest) -> None:
    path = spawner.home / "in"
    path.write_text("x" * 200_000 + "\n")
    assert (await read(spawner, path)).error is None
    assert spawner.output("run") == "x" * 200_000 + f"\n{path}\n"


async def test_the_spawner_says_that_it_can(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        assert link.client.hello is not None and link.client.hello.stdin


@needs_root
async def test_it_is_opened_by_its_owner_and_not_by_the_user_of_the_run(spawner: SpawnerUnderTest) -> None:
    path = spawner.home / "in"
    path.write_text("secret\n")
    path.chmod(0o600)
    record = await read(spawner, path, user="nobody", own=False)
    assert record.error is None
    assert spawner.output("run").startswith("secret\n")


@pytest.mark.parametrize("kind", ["missing", "link", "fifo", "directory", "second link"])
async def test_what_is_no_file_of_its_owner_starts_nothing(spawner: SpawnerUnderTest, kind: str) -> None:
    path, other = spawner.home / "in", spawner.home / "other"
    other.write_text("of somebody else\n")
    if kind == "link":
        path.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "second link":
        os.link(other, path)
    record = await read(spawner, path)
    assert record.error is not None and record.error.stage == "stdin"
    assert record.error.message.startswith(f"cannot open stdin file {path}: ")
    assert "somebody" not in spawner.output("run")
