"""A run in a directory that is made for it alone, and how that goes again."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.core.machine import RunRecord
from runnerd.core.problems import Problems
from runnerd.launch.scratch import scratch_directory, tidy_key, tidy_spec
from runnerd.processes.client import SpawnerClient
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import Record
from runnerd.runs.scratch import remove_scratch
from runnerd.spawner.proc.identity import is_alive, read_start_ticks
from tests.kits.nouns import LogLines, a_record, log_to
from tests.kits.spawner import LIMIT_S, OWN_USER, SpawnerUnderTest, needs_root, needs_system_python, wait_until

RUN_ID = "0a1b2c3d-1111-4111-8111-111111111111"
# Leaves what plain rm stops at, and ways out of the directory.
LEAVE_MUCH = """
mkdir -p shut/deep/deeper open
touch shut/deep/deeper/file open/file -- "-rf *"
ln -s "$1" out; ln -s "$1" shut/deep/out
chmod 0555 shut/deep/deeper; chmod 0 shut/deep; chmod 0555 shut .
"""

# The user of a run, where the tests' own may start others'.
users = pytest.mark.parametrize(
    "user", [None, pytest.param("nobody", marks=[needs_root, needs_system_python])], ids=["own", "nobody"]
)


@pytest.fixture
def tmp(spawner: SpawnerUnderTest) -> Path:
    tmp = spawner.home / "tmp"
    tmp.mkdir()
    tmp.chmod(0o1777)
    return tmp


async def run(
    spawner: SpawnerUnderTest, directory: str, *argv: str, mode: tuple[str, ...] = (), **settings: object
) -> Record:
    """Start it in a directory of its own and see it end."""
    spec = spawner.spec("run", *argv, mode=mode, working_directory=directory, make_directory=True, **settings)
    async with spawner.link() as link:
        await link.client.spawn(spec)
        return await link.until("run", "exited", spec.attempt)


# --- made -------------------------------------------------------------------------------------------------------


@users
@pytest.mark.parametrize("umask", [None, 0, 0o777])
async def test_it_is_the_run_s_alone(spawner: SpawnerUnderTest, tmp: Path, user: str | None, umask: int | None) -> None:
    record = await run(spawner, f"{tmp}/mine", mode=("facts",), user=user, umask=umask)
    assert record.error is None
    told = json.loads(spawner.output("run"))
    assert (told["directory"], told["umask"]) == (str(tmp / "mine"), 0o022 if umask is None else umask)
    facts = (tmp / "mine").stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o700, pwd.getpwnam(user).pw_uid if user else os.geteuid())


async def test_a_run_that_asks_for_none_has_none_made(spawner: SpawnerUnderTest, tmp: Path) -> None:
    """What a spawner does that is too old to know of it."""
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", "true", working_directory=str(tmp / "mine")))
        record = await link.until("run", "exited")
    assert record.error is not None
    assert record.error.message == f"cannot start: working directory {tmp}/mine does not exist"
    assert list(tmp.iterdir()) == []


# --- could not be made ------------------------------------------------------------------------------------------

TAKEN = "the path exists already, and the run needs a new directory"


@users
@pytest.mark.parametrize(
    ("directory", "why"),
    [
        ("taken", TAKEN),
        ("taken/", TAKEN),
        ("file", TAKEN),
        ("link", TAKEN),
        ("dangling", TAKEN),
        ("missing/mine", "{tmp}/missing does not exist"),
        ("file/mine", "{tmp}/file is not a directory"),
        ("x" * 300, "File name too long"),
    ],
)
async def test_where_it_cannot_be(
    spawner: SpawnerUnderTest, tmp: Path, user: str | None, directory: str, why: str
) -> None:
    (tmp / "taken").mkdir()
    (tmp / "file").touch()
    (tmp / "link").symlink_to(tmp / "taken")
    (tmp / "dangling").symlink_to(tmp / "nowhere")
    before = sorted(tmp.rglob("*"))
    error = (await run(spawner, f"{tmp}/{directory}", "touch", "ran", user=user)).error
    assert error is not None
    message = f"cannot make the working directory {tmp}/{directory}: {why.format(tmp=tmp)}"
    assert (error.stage, error.message) == ("working-directory", message)
    assert sorted(tmp.rglob("*")) == before


@needs_root
async def test_where_the_user_may_not(spawner: SpawnerUnderTest, tmp: Path) -> None:
    """Root could: the directory is made by whom it is for."""
    tmp.chmod(0o755)
    error = (await run(spawner, f"{tmp}/mine", "true", user="nobody")).error
    assert error is not None
    assert error.message == f"cannot make the working directory {tmp}/mine: permission denied for user nobody in {tmp}"
    assert list(tmp.iterdir()) == []


@users
async def test_a_program_that_is_not_there_leaves_none(spawner: SpawnerUnderTest, tmp: Path, user: str | None) -> None:
    error = (await run(spawner, f"{tmp}/mine", "/no/such/program", user=user)).error
    assert error is not None
    assert error.message == "cannot start: no such interpreter /no/such/program"
    assert list(tmp.iterdir()) == []


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_spawner_that_dies_before_the_start_leaves_none(idle_spawner: SpawnerUnderTest, when: str) -> None:
    """Or the run could not be started a second time."""
    spawner, directory = idle_spawner, idle_spawner.home / "mine"
    spawner.start(program=("spawner-dies-before-go", when))

    spec = spawner.spec("run", "true", working_directory=str(directory), make_directory=True)
    async with spawner.link() as link:
        with pytest.raises(SpawnerError):
            await link.client.spawn(spec)
    assert spawner.process is not None
    assert spawner.process.stdout is not None
    pid, ticks = map(int, spawner.process.stdout.readline().split())
    assert spawner.wait() == -signal.SIGKILL
    wait_until(lambda: read_start_ticks(pid) != ticks or not is_alive(pid), "the child to give up")
    assert not directory.exists()


# --- removed ----------------------------------------------------------------------------------------------------


def a_scratch_record(spawner: SpawnerUnderTest, tmp: Path, user: str | None, **changes: object) -> RunRecord:
    claim = "9f8e7d6c-5b4a-4111-8111-111111111111"
    output = str(spawner.home / "run.out")
    record = a_record(RUN_ID, transition_id=claim, user=user or OWN_USER, output=output, **changes)
    return replace(record, scratch=scratch_directory(record, tmp=str(tmp)))


async def tidied(spawner: SpawnerUnderTest, record: RunRecord) -> str | None:
    """What comes of tidying up after this run; the spawner remembers none of it."""

    async def nobody_to_start() -> None:
        raise SpawnerError("cannot start another spawner")

    link = SpawnerLink(
        make_client=lambda on_record, on_lost: SpawnerClient(
            socket_path=spawner.socket, on_record=on_record, on_lost=on_lost
        ),
        start_spawner=nobody_to_start,
        problems=Problems(),
        log=log_to(LogLines()),
    )
    keeping = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(LIMIT_S):
            words = await remove_scratch(record, link=link, spec=tidy_spec(record))
        assert tidy_key(record.id) not in [seen.key for seen in link.records()]
        return words
    finally:
        keeping.cancel()
        await link.close()


@users
async def test_whatever_the_run_left_goes(spawner: SpawnerUnderTest, tmp: Path, user: str | None) -> None:
    kept = spawner.home / "kept"
    kept.mkdir()
    (kept / "file").touch()
    if user:
        os.chown(kept, pwd.getpwnam(user).pw_uid, -1)
    kept.chmod(0o555)
    record = a_scratch_record(spawner, tmp, user, attempt=2, respawned=True)
    assert record.scratch is not None
    before = a_scratch_record(spawner, tmp, user).scratch
    for number, directory in enumerate((record.scratch, f"{record.scratch}-hooks", str(before))):
        leaving = ("/bin/sh", "-ec", LEAVE_MUCH, "sh", str(kept))
        ended = (await run(spawner, directory, *leaving, attempt=number, user=user)).exit
        assert ended is not None
        assert ended.code == 0, spawner.output("run")
    (tmp / "runnerd-another").mkdir()
    assert await tidied(spawner, record) is None, spawner.output("run")
    assert [path.name for path in tmp.iterdir()] == ["runnerd-another"]
    assert [path.name for path in kept.iterdir()] == ["file"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o555, "what links lead to stays as it is"


async def test_what_is_gone_already(spawner: SpawnerUnderTest, tmp: Path) -> None:
    assert await tidied(spawner, a_scratch_record(spawner, tmp, None)) is None


async def test_a_link_in_its_place_goes_and_leads_nowhere(spawner: SpawnerUnderTest, tmp: Path) -> None:
    record = a_scratch_record(spawner, tmp, None)
    assert record.scratch is not None
    kept = spawner.home / "kept"
    kept.mkdir()
    (kept / "file").touch()
    os.symlink(kept, record.scratch)
    assert await tidied(spawner, record) is None
    assert list(tmp.iterdir()) == []
    assert (kept / "file").exists()


@needs_root
async def test_what_is_another_s_stays_and_is_told(spawner: SpawnerUnderTest, tmp: Path) -> None:
    record = a_scratch_record(spawner, tmp, "nobody")
    assert record.scratch is not None
    stuck = Path(record.scratch)
    stuck.mkdir()
    os.chown(stuck, pwd.getpwnam("nobody").pw_uid, -1)
    (stuck / "root").mkdir(mode=0o700)
    (stuck / "root" / "file").touch()
    told = f"cannot remove {stuck}: exited 1; see `runnerctl logs {RUN_ID}`"
    assert await tidied(spawner, record) == told
    assert f"{stuck}/root" in spawner.output("run")
    assert (stuck / "root" / "file").exists()
