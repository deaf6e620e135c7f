"""What a run is given at its start, and what is said when it cannot start."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.core.process import LaunchSpec
from runnerd.processes.protocol import Record
from tests.kits.spawner import SpawnerUnderTest, needs_root, needs_system_python


async def run(spawner: SpawnerUnderTest, spec: LaunchSpec) -> Record:
    """Start it and see it end."""
    async with spawner.link() as link:
        await link.client.spawn(spec)
        return await link.until(spec.key, "exited", spec.attempt)


async def facts(spawner: SpawnerUnderTest, **settings: object) -> dict[str, object]:
    record = await run(spawner, spawner.spec("facts", mode=("facts",), **settings))
    assert record.exit is not None, record
    assert record.exit.code == 0, spawner.output("facts")
    told: dict[str, object] = json.loads(spawner.output("facts"))
    return told


async def test_environment_is_exactly_what_the_spec_says(spawner: SpawnerUnderTest) -> None:
    environment = {"PATH": "/usr/bin", "ONE": "1", "UMLAUT": "ü", "EMPTY": ""}
    assert (await facts(spawner, environment=environment))["environment"] == environment


async def test_nothing_is_inherited_but_standard_files(spawner: SpawnerUnderTest) -> None:
    told = await facts(spawner)
    output = str(spawner.home / "facts.out")
    assert told["fds"] == {"0": "/dev/null", "1": output, "2": output}
    assert told["umask"] == 0o022
    assert told["oom_score_adj"] == 0
    assert told["pid"] == told["pgid"] == told["sid"]


async def test_signals_are_all_at_their_default(spawner: SpawnerUnderTest) -> None:
    await run(spawner, spawner.spec("signals", "cat", "/proc/self/status"))
    status = dict(line.split(":", 1) for line in spawner.output("signals").splitlines())
    # The C library keeps signals 32 and 33 to itself: what a caller of ours did with them cannot be undone.
    ours = sum(1 << (number - 1) for number in signal.valid_signals())
    assert [int(status[name], 16) & ours for name in ("SigBlk", "SigIgn", "SigCgt")] == [0, 0, 0]


async def test_several_runs_at_once_do_not_see_each_others_files(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        keys = [f"r{number}" for number in range(12)]
        await asyncio.gather(*(link.client.spawn(spawner.spec(key, mode=("facts",))) for key in keys))
        for key in keys:
            await link.until(key, "exited")
            output = str(spawner.home / f"{key}.out")
            assert json.loads(spawner.output(key))["fds"] == {"0": "/dev/null", "1": output, "2": output}


async def test_bounds_and_directory(spawner: SpawnerUnderTest, tmp_path: Path) -> None:
    told = await facts(
        spawner,
        umask=0o027,
        nice=7,
        rlimits={"nofile": (64, 128), "core": (0, -1)},
        working_directory=str(tmp_path),
    )
    assert told["umask"] == 0o027
    assert told["nice"] == 7
    assert told["nofile"] == [64, 128]
    assert told["core"] == [0, -1]
    assert told["directory"] == str(tmp_path)


async def test_program_is_found_on_the_runs_own_path(spawner: SpawnerUnderTest) -> None:
    tool = spawner.home / "tools" / "only-here"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 5\n")
    tool.chmod(0o755)
    record = await run(spawner, spawner.spec("tool", "only-here", environment={"PATH": f"/nowhere:{tool.parent}"}))
    assert record.exit is not None
    assert record.exit.code == 5


async def test_result_file_is_descriptor_3(spawner: SpawnerUnderTest) -> None:
    result = spawner.home / "result"
    result.write_text("of an earlier run, and longer than the answer")
    record = await run(spawner, spawner.spec("answer", mode=("answer",), result=str(result)))
    assert record.exit is not None
    assert record.exit.code == 0
    assert result.read_text() == "the answer"


async def test_output_of_an_earlier_attempt_is_kept(spawner: SpawnerUnderTest) -> None:
    await run(spawner, spawner.spec("echo", "echo", "first"))
    await run(spawner, spawner.spec("echo", "echo", "second", attempt=1))
    assert spawner.output("echo") == "first\nsecond\n"


@needs_root
@needs_system_python
async def test_user_and_its_groups(spawner: SpawnerUnderTest) -> None:
    account = pwd.getpwnam("nobody")
    told = await facts(spawner, user="nobody")
    assert told["uids"] == [account.pw_uid] * 3
    assert told["gids"] == [account.pw_gid] * 3
    assert told["groups"] == sorted(os.getgrouplist("nobody", account.pw_gid))


@needs_root
@needs_system_python
async def test_group_instead_of_the_primary_one(idle_spawner: SpawnerUnderTest, tmp_path: Path) -> None:
    groups = tmp_path / "group"
    groups.write_text(Path("/etc/group").read_text() + "flows:x:64900:nobody\n")
    in_that_group = ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/group && exec "$@"', str(groups))
    idle_spawner.start(listed=False, through=in_that_group)
    told = await facts(idle_spawner, user="nobody", group="flows")
    assert told["gids"] == [64900] * 3
    assert told["groups"] == [64900]


@needs_root
async def test_output_belongs_to_the_owner(idle_spawner: SpawnerUnderTest) -> None:
    owner = pwd.getpwnam("daemon").pw_uid
    os.chown(idle_spawner.home, owner, -1)
    idle_spawner.start("--owner", str(owner))
    told = await facts(idle_spawner, user="nobody", result=str(idle_spawner.home / "result"))
    assert told["groups"] == sorted(os.getgrouplist("nobody", pwd.getpwnam("nobody").pw_gid))
    for name in ("facts.out", "result"):
        found = os.stat(idle_spawner.home / name)
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (owner, pwd.getpwuid(owner).pw_gid, 0o640)


@needs_root
async def test_a_run_that_stays_root_is_root_again_once_its_files_are_open(idle_spawner: SpawnerUnderTest) -> None:
    os.chown(idle_spawner.home, pwd.getpwnam("daemon").pw_uid, -1)
    idle_spawner.start("--owner", "daemon")
    told = await facts(idle_spawner, user="root")
    assert (told["uids"], told["gids"]) == ([0] * 3, [0] * 3)
    assert told["groups"] == sorted(os.getgrouplist("root", 0))


@needs_root
@pytest.mark.parametrize("what", ["output", "result"])
async def test_files_the_owner_could_not_open_himself(idle_spawner: SpawnerUnderTest, what: str) -> None:
    """A daemon that was taken over has root write nothing, and be given nothing, that is not its own."""
    os.chown(idle_spawner.home, pwd.getpwnam("daemon").pw_uid, -1)
    secret = idle_spawner.home / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    idle_spawner.start("--owner", "daemon")
    message = f"cannot open {what} file {secret}: Permission denied"
    assert await failure(idle_spawner, user="nobody", **{what: str(secret)}) == (what, message)
    assert (secret.read_text(), secret.stat().st_uid) == ("root's", 0)


# --- could not start --------------------------------------------------------------------------------------


async def failure(spawner: SpawnerUnderTest, **settings: object) -> tuple[str, str]:
    """Stage and message; the same in the answer, in the event and for a second asking."""
    async with spawner.link() as link:
        spec = spawner.spec("bad", **settings)  # type: ignore[arg-type]
        answer = await link.client.spawn(spec)
        assert answer == await link.until("bad", "exited")
        assert answer == await link.client.spawn(spec)
        assert link.phases("bad") == ["exited"]
        record = answer
    assert record.exit is None
    assert record.error is not None
    return record.error.stage, record.error.message


def write_script(path: Path, first_line: str, mode: int = 0o755) -> str:
    path.write_text(f"{first_line}\nexit 0\n")
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("changes", "stage", "words"),
    [
        ({"argv": ("/opt/x/bin/python",)}, "exec", "no such interpreter /opt/x/bin/python"),
        ({"argv": ("no-such-tool",)}, "exec", "no such program no-such-tool in PATH /usr/bin:/bin"),
        ({"user": "no-such-user"}, "user", "no such user no-such-user"),
        ({"group": "no-such-group"}, "group", "no such group no-such-group"),
        ({"working_directory": "/opt/no/such"}, "working-directory", "working directory /opt/no/such does not exist"),
        ({"working_directory": "/etc/passwd"}, "working-directory", "working directory /etc/passwd is not a directory"),
    ],
)
async def test_what_does_not_exist(spawner: SpawnerUnderTest, changes: Any, stage: str, words: str) -> None:
    assert await failure(spawner, **changes) == (stage, f"cannot start: {words}")


async def test_interpreter_is_a_broken_link(spawner: SpawnerUnderTest) -> None:
    link = spawner.home / "python"
    link.symlink_to("/nowhere/python3.9")
    message = f"cannot start: no such interpreter {link}: it is a link to /nowhere/python3.9, which does not exist"
    assert await failure(spawner, argv=(str(link),)) == ("exec", message)


async def test_script_without_its_interpreter(spawner: SpawnerUnderTest) -> None:
    script = write_script(spawner.home / "script", "#!/no/such/python -u")
    message = f"cannot start: {script} is a script for /no/such/python, which does not exist"
    assert await failure(spawner, argv=(script,)) == ("exec", message)


async def test_interpreter_is_a_fifo(spawner: SpawnerUnderTest) -> None:
    os.mkfifo(spawner.home / "python", 0o777)  # the reason is read from the file, and nobody writes to this one
    assert "permission denied" in (await failure(spawner, argv=(str(spawner.home / "python"),)))[1]


async def test_not_executable(spawner: SpawnerUnderTest) -> None:
    script = write_script(spawner.home / "script", "#!/bin/sh", mode=0o644)
    message = f"cannot start: {script} is not executable for the spawner's user"
    assert await failure(spawner, argv=(script,)) == ("exec", message)


async def test_neither_program_nor_script(spawner: SpawnerUnderTest) -> None:
    script = write_script(spawner.home / "script", "just text")
    stage, message = await failure(spawner, argv=(script,))
    assert stage == "exec"
    assert message == (f"cannot start: {script} is not executable: neither a program for this machine nor a #! script")


async def test_program_is_a_directory(spawner: SpawnerUnderTest) -> None:
    message = f"cannot start: {spawner.home} is a directory"
    assert await failure(spawner, argv=(str(spawner.home),)) == ("exec", message)


async def test_arguments_too_long(spawner: SpawnerUnderTest) -> None:
    message = "cannot start: arguments and environment together are longer than the kernel allows"
    assert await failure(spawner, argv=("true", "x" * 2**20)) == ("exec", message)


@needs_root
async def test_directory_closed_to_the_user(spawner: SpawnerUnderTest) -> None:
    closed = spawner.home / "closed"
    closed.mkdir(mode=0o700)
    message = f"cannot start: working directory {closed}: permission denied for user nobody"
    told = await failure(spawner, user="nobody", working_directory=str(closed))
    assert told == ("working-directory", message)


@needs_root
async def test_program_closed_to_the_user(spawner: SpawnerUnderTest) -> None:
    closed = spawner.home / "closed"
    closed.mkdir(mode=0o700)
    script = write_script(closed / "script", "#!/bin/sh")
    message = f"cannot start: permission denied for user nobody on the way to {script}"
    assert await failure(spawner, user="nobody", argv=(script,)) == ("exec", message)


async def test_output_directory_missing(spawner: SpawnerUnderTest) -> None:
    path = spawner.home / "missing" / "out"
    message = f"cannot open output file {path}: No such file or directory"
    assert await failure(spawner, output=str(path)) == ("output", message)


async def test_output_is_not_followed_elsewhere(spawner: SpawnerUnderTest) -> None:
    target = spawner.home / "target"
    target.write_text("")
    path = spawner.home / "out"
    path.symlink_to(target)
    stage, message = await failure(spawner, output=str(path))
    assert (stage, message.startswith(f"cannot open output file {path}: ")) == ("output", True)


async def test_output_that_is_a_hard_link_is_refused(spawner: SpawnerUnderTest) -> None:
    target = spawner.home / "target"
    target.write_text("")
    path = spawner.home / "out"
    path.hardlink_to(target)
    message = f"cannot open output file {path}: the path is not a regular file with one link"
    assert await failure(spawner, output=str(path)) == ("output", message)


async def test_result_directory_missing(spawner: SpawnerUnderTest) -> None:
    path = spawner.home / "missing" / "result"
    message = f"cannot open result file {path}: No such file or directory"
    assert await failure(spawner, result=str(path)) == ("result", message)


async def test_rlimit_that_cannot_be(spawner: SpawnerUnderTest) -> None:
    stage, message = await failure(spawner, rlimits={"nofile": (20, 10)})
    assert (stage, message.startswith("cannot set limit nofile to 20:10: ")) == ("rlimits", True)


@needs_root
@needs_system_python
async def test_changing_users_without_root(idle_spawner: SpawnerUnderTest) -> None:
    spawner = idle_spawner
    os.chown(spawner.home, pwd.getpwnam("nobody").pw_uid, -1)
    spawner.start(user="nobody")
    message = "cannot start as user daemon: the spawner does not run as root"
    assert await failure(spawner, argv=("true",), user="daemon") == ("user", message)
    record = await run(spawner, spawner.spec("own", "true", user="nobody"))
    assert record.exit is not None
    assert record.exit.code == 0


async def test_killed_before_it_could_start_reads_as_killed(spawner: SpawnerUnderTest) -> None:
    """No room for the new program's memory: still an end, never a run that hangs in `starting`."""
    record = await run(spawner, spawner.spec("tiny", "true", rlimits={"as": (2**16, 2**16)}))
    assert record.exit is not None
    assert record.exit.signal is not None


async def test_nothing_runs_when_it_cannot_be_recorded(idle_spawner: SpawnerUnderTest) -> None:
    spawner = idle_spawner
    spawner.start(program=("spawner-cannot-record",))
    async with spawner.link() as link:
        with pytest.raises(SpawnerError, match="cannot write its record: No space left on device") as refusal:
            await link.client.spawn(spawner.spec("lost", "echo", "ran"))
        assert refusal.value.refused
        assert await link.client.list() == []
    assert spawner.end() == 0
    assert spawner.output("lost") == ""
