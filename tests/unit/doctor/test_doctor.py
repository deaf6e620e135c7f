"""The doctor as a whole: it has a check of each group, and a group that hangs or fails affects no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from runnerd.core.place import Problem
from runnerd.core.process import Exit
from runnerd.doctor.check_runner import CheckGroup, CheckRunner
from runnerd.doctor.checks import Check, ok
from runnerd.system.directories import work_dir
from runnerd.system.threads import in_thread
from tests.kits.doctor import practice, python_of
from tests.kits.nouns import LogLines, log_to

WELL = {
    "api",
    "server version",
    "clock",
    "control",
    "dbus",
    "loops",
    "spawner",
    "limits",
    "open files",
    "journal",
    "warm interpreters",
    "notices",
    "state directory",
    "log directory",
    "runtime directory",
    "state disk",
    "log disk",
    "configuration files",
    "credentials",
    "configuration",
    "deployments",
    "work pools",
    "users",
    "runs",
}


# --- all of it --------------------------------------------------------------------------------------------------


@pytest.mark.real_io
async def test_a_host_that_is_well(tmp_path: Path) -> None:
    async with practice(tmp_path) as one:
        checks = await one.examine()
        assert set(checks) == WELL
        # A fake API has no clock, and the disk is whatever it is on the machine of whoever tests.
        bad = {name for name, check in checks.items() if check["state"] != "ok"}
        assert bad <= {"clock", "state disk", "log disk"}
        assert all(check["remedy"] is None for name, check in checks.items() if name not in bad)


@pytest.mark.real_io
async def test_a_host_with_a_lot_of_trouble(tmp_path: Path) -> None:
    async with practice(tmp_path) as one:
        one.engine.deploy("nightly", run={"user": "nobody-of-ours"})
        one.engine.prefect.down = True
        one.engine.journal.problem = "cannot write the journal: disk full"
        one.config.refused = (Problem(message="unknown key 'x'"),)
        one.engine.pulse.beat("poll", within_s=-1)
        one.spawner.down = True
        one.spawner.lose()
        checks = await one.examine()
        errors = {name for name, check in checks.items() if check["state"] == "error"}
        assert errors >= {"api", "journal", "configuration", "loops", "spawner", "users"}
        assert all(check["remedy"] for check in checks.values() if check["state"] == "error")
        assert checks["server version"]["state"] == "unknown"
        assert (
            checks[python_of("nobody-of-ours")]["detail"] == "cannot run this interpreter: the spawner is not connected"
        )
        assert "limits" not in checks


@pytest.mark.real_io
async def test_one_look_that_fails_hides_no_other(tmp_path: Path) -> None:
    async def fail() -> Sequence[Check]:
        raise RuntimeError("this is the fault under test")

    async with practice(tmp_path, more=[CheckGroup(name="broken", run=fail)]) as one:
        checks = await one.examine()
        assert set(checks) == WELL | {"broken"}
        assert checks["broken"]["state"] == "unknown"
        assert "RuntimeError: this is the fault under test" in checks["broken"]["detail"]
        assert "a check of the doctor failed" in one.engine.lines.events("error")


@pytest.mark.real_io
async def test_an_api_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    async with practice(tmp_path) as one:
        hangs = asyncio.Event()

        async def server() -> None:
            await hangs.wait()

        one.engine.api.server = server  # type: ignore[method-assign, assignment]
        checks = await one.examine()
        assert checks["server version"]["detail"] == "the API did not answer within 5s"
        assert checks["api"]["state"] == "error"


# --- interpreters -----------------------------------------------------------------------------------------------


@pytest.mark.real_io
async def test_an_interpreter_is_asked_once_as_its_user_and_forgotten(tmp_path: Path) -> None:
    async with practice(tmp_path) as one:
        one.engine.deploy("nightly")
        one.engine.deploy("hourly")
        one.engine.deploy("other", run={"user": "root"})
        examining = asyncio.create_task(one.examine())
        await one.engine.until(lambda: len(one.spawner.started) == 2)
        # Both are asked at once, and in no order.
        answers = {None: "3.11 3.8.8\n", "root": "3.9 2.20.25\n"}
        for spec in one.spawner.started:
            assert spec.result is not None
            Path(spec.result).write_text(answers[spec.user])
            one.spawner.exit(spec.key)
        checks = await examining
        assert {spec.user for spec in one.spawner.started} == {None, "root"}
        assert checks[python_of()] == {
            "name": python_of(),
            "state": "ok",
            "detail": "Prefect 3.8.8, Python 3.11; used by etl/nightly and 1 more",
            "remedy": None,
        }
        assert checks[python_of("root")]["state"] == "error"
        assert "Prefect 2.20.25 with a server of 3.9.1 does not work" in checks[python_of("root")]["detail"]
        assert one.spawner.records == {}
        assert list(Path(work_dir(one.paths)).iterdir()) == []


@pytest.mark.real_io
@pytest.mark.parametrize(
    ("exit", "output", "words"),
    [
        (Exit(code=1), "Traceback\nModuleNotFoundError: x\n", "it exited 1: ModuleNotFoundError: x"),
        (Exit(signal=11), "", "killed by SIGSEGV without output"),
    ],
)
async def test_an_interpreter_that_breaks(tmp_path: Path, exit: Exit, output: str, words: str) -> None:
    async with practice(tmp_path) as one:
        one.engine.deploy()
        examining = asyncio.create_task(one.examine())
        await one.engine.until(lambda: one.spawner.started)
        (spec,) = one.spawner.started
        Path(spec.output).write_text(output)
        one.spawner.exit(spec.key, code=exit.code, signal=exit.signal)
        check = (await examining)[python_of()]
        assert check["state"] == "error"
        assert words in check["detail"]


@pytest.mark.real_io
async def test_an_interpreter_that_cannot_start_hangs_or_has_no_environment(tmp_path: Path) -> None:
    async with practice(tmp_path) as one:
        one.engine.deploy("nightly", run={"environment_file": str(tmp_path / "absent")})
        checks = await one.examine()
        assert f"environment_file {tmp_path}/absent: No such file" in checks[python_of()]["detail"]
        one.engine.deploy("nightly")
        one.spawner.start_error = "no such interpreter /x"
        checks = await one.examine()
        assert checks[python_of()]["detail"].endswith(
            "cannot run the interpreter of etl/nightly: no such interpreter /x"
        )
        one.spawner.start_error, one.spawner.refuses = None, "it is full"
        assert (await one.examine())[python_of()]["detail"].endswith(
            "cannot run the interpreter of etl/nightly: it is full"
        )


@pytest.mark.real_io
async def test_an_interpreter_that_hangs(tmp_path: Path) -> None:
    async with practice(tmp_path) as one:
        one.engine.deploy()
        one.spawner.stubborn = True
        check = (await one.examine())[python_of()]
        assert "did not answer within 15s" in check["detail"]
        assert one.spawner.records == {}


# --- groups -----------------------------------------------------------------------------------------------------


async def test_a_look_that_hangs_is_taken_once_and_its_end_is_awaited_by_the_next() -> None:
    runner, taken, end = CheckRunner(log=log_to(LogLines())), [], asyncio.Event()

    async def take() -> Sequence[Check]:
        taken.append(1)
        await end.wait()
        return [ok("x", "well")]

    slow = CheckGroup(name="x", run=take, limit_s=0.01)
    for _ in range(3):
        (check,) = await runner.run(slow)
        assert check.state == "unknown"
        assert "did not finish within 10ms" in check.detail
    assert len(taken) == 1
    waiting = asyncio.create_task(runner.run(CheckGroup(name="x", run=take, limit_s=60)))
    await asyncio.sleep(0)
    end.set()
    assert await waiting == [ok("x", "well")]
    assert await runner.run(slow) == [ok("x", "well")]
    assert len(taken) == 2


@pytest.mark.real_io
async def test_a_thread_that_hangs_holds_up_neither_the_loop_nor_its_end() -> None:
    hang = threading.Event()
    task = asyncio.create_task(in_thread(hang.wait))
    assert await in_thread(lambda: "another") == "another"
    assert not task.done()
    with pytest.raises(ValueError, match="oops"):
        await in_thread(lambda: int("oops"))
    hang.set()  # nobody waits for it any more, and the loop is closed
