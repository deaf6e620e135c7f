"""Runs that are forked of a warm interpreter: how they start and end, and when they start cold instead."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.process import ForkOf
from runnerd.launch.spec import PROGRAM, program_argv
from runnerd.processes.protocol import Record
from tests.kits.spawner import (
    Link,
    SpawnerUnderTest,
    assert_nothing_left,
    command_of,
    needs_root,
    open_files,
    wait_until,
)
from tests.kits.warm import (
    FORK_OF,
    WARM,
    base_environment,
    flow_spec,
    make_prefect,
    run_to_end,
    start_warm,
    until_warm,
    warm_spec,
)

STAY = "import signal\nprint('ready', flush=True)\nwhile True: signal.pause()\n"


@pytest.fixture
def library(spawner: SpawnerUnderTest) -> Path:
    return make_prefect(spawner)


@pytest.mark.usefixtures("library")
async def test_a_run_is_forked_of_a_warm_interpreter(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        before = count_files(spawner)
        started = await link.client.spawn(warm_spec(spawner))
        assert started.warm is not None and started.warm.state in ("importing", "ready")
        ready = (await until_warm(link)).warm
        assert ready is not None and ready.prefect == "0.0" and ready.python and ready.import_s is not None

        record = await link.client.spawn(flow_spec(spawner, "run-1", "import prefect\nprint(prefect.__version__)"))
        assert (record.start, record.start_problem, record.phase) == ("warm", None, "running")
        assert pid_of(record) != pid_of(started)
        ended = await link.until("run-1", "exited")
        assert ended.exit is not None and ended.exit.code == 0
        assert spawner.output("run-1") == "0.0\n"
        assert link.phases("run-1") == ["running", "exited"]

        await link.client.stop(key=WARM, attempt=0, reason="evict")
        gone = await link.until(WARM, "exited")
        assert gone.exit is not None and gone.exit.signal == signal.SIGTERM
        assert count_files(spawner) == before
    assert_nothing_left(spawner)


def pid_of(record: Record) -> int:
    assert record.identity is not None
    return record.identity.pid


def count_files(spawner: SpawnerUnderTest) -> int:
    assert spawner.process is not None
    return len(open_files(spawner.process.pid))


@pytest.mark.usefixtures("library")
async def test_the_command_of_prefect_2_is_forked_too(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        cold = flow_spec(spawner, "cold", "", fork_of=None)
        argv = program_argv(cold.argv[0], "prefect.engine")
        program = "import sys, json\nprint(json.dumps([__name__, sys.argv, sys.path[0], sys.orig_argv[1:]]))"
        environment = {**base_environment(spawner), PROGRAM: program}
        for key, fork_of in (("cold", None), ("run-1", FORK_OF)):
            spec = spawner.spec(key, *argv, environment=environment, fork_of=fork_of)
            record = await run_to_end(link, spec)
            assert record.start == ("warm" if fork_of else "cold"), record.start_problem
        assert spawner.output("run-1") == spawner.output("cold") != ""


@pytest.mark.usefixtures("library")
async def test_many_runs_at_once(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        keys = [f"run-{number}" for number in range(12)]
        records = await asyncio.gather(*(link.client.spawn(flow_spec(spawner, key, STAY)) for key in keys))
        assert {record.start for record in records} == {"warm"}
        assert len({record.identity.pid for record in records if record.identity}) == len(keys)
        for key in keys:
            spawner.wait_for_output(key)
            await link.client.stop(key=key, attempt=0, reason="cancel")
        for key in keys:
            ended = await link.until(key, "exited")
            assert ended.exit is not None and ended.exit.signal == signal.SIGTERM


# --- the end of an interpreter and of its forks ---------------------------------------------------------------


@pytest.mark.usefixtures("library")
async def test_a_run_outlives_its_interpreter(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        run = await link.client.spawn(flow_spec(spawner, "run-1", STAY))
        spawner.wait_for_output("run-1")
        await link.client.stop(key=WARM, attempt=0, reason="evict", timeout_s=0.0)
        await link.until(WARM, "exited")
        assert command_of(pid_of(run)).split("\0")[1:3] == ["-m", "prefect.engine"]
        await link.client.stop(key="run-1", attempt=0, reason="cancel")
        ended = await link.until("run-1", "exited")
        assert ended.exit is not None and ended.exit.signal == signal.SIGTERM
    assert_nothing_left(spawner)


@pytest.mark.usefixtures("library")
async def test_what_a_forked_run_leaves_behind_is_killed(spawner: SpawnerUnderTest) -> None:
    leave = (
        "import os, subprocess, sys, time\n"
        "daemon = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0: time.sleep(1000)\n"
        "    os._exit(0)\n"
        "print(daemon.pid, flush=True)\n"
        "time.sleep(0.1)\n"
    )
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        await run_to_end(link, flow_spec(spawner, "run-1", leave))
        pid = int(spawner.output("run-1"))
        wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the daemon")
        warm = await until_warm(link)
        assert os.path.exists(f"/proc/{pid_of(warm)}"), "the interpreter stays"
        assert spawner.process is not None
        children = Path(f"/proc/{spawner.process.pid}/task/{spawner.process.pid}/children").read_text().split()
        assert children == [str(pid_of(warm))]


@pytest.mark.usefixtures("library")
async def test_an_interpreter_ends_with_its_spawner_and_a_run_is_adopted(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        warm = await start_warm(link, warm_spec(spawner))
        run = await link.client.spawn(flow_spec(spawner, "run-1", STAY))
        spawner.wait_for_output("run-1")
    spawner.end(signal.SIGKILL)
    wait_until(lambda: not command_of(pid_of(warm)), "the end of the interpreter")
    spawner.start()
    async with spawner.link() as link:
        adopted = link.replayed["run-1", 0]
        assert (adopted.phase, adopted.identity, adopted.start) == ("running", run.identity, "warm")
        cold = await run_to_end(link, flow_spec(spawner, "run-2", "print('ran')"))
        assert cold.start == "cold" and cold.start_problem == "warm interpreter warm-1 attempt 0 does not run"
        await link.client.stop(key="run-1", attempt=0, reason="cancel")
        ended = await link.until("run-1", "exited")
        assert ended.exit is not None and ended.exit.code is None


@pytest.mark.usefixtures("library")
async def test_no_run_is_forked_of_an_adopted_interpreter(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
    spawner.end(signal.SIGKILL)
    spawner.start()
    async with spawner.link() as link:
        record = await run_to_end(link, flow_spec(spawner, "run-1", "print('ran')"))
        assert (record.start, spawner.output("run-1")) == ("cold", "ran\n")


@pytest.mark.usefixtures("library")
async def test_an_interpreter_does_not_keep_a_spawner_from_retiring(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        warm = await start_warm(link, warm_spec(spawner))
        await run_to_end(link, flow_spec(spawner, "run-1", STAY.replace("while True: signal.pause()", "")))
        assert await link.client.retire()
    assert spawner.wait() == 0
    wait_until(lambda: not command_of(pid_of(warm)), "the end of the interpreter")


# --- cold instead -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"fork_of": ForkOf(key="warm-9", attempt=0)}, "warm interpreter warm-9 attempt 0 does not run"),
        ({"fork_of": ForkOf(key=WARM, attempt=1)}, "warm interpreter warm-1 attempt 1 does not run"),
        ({"argv": ("/usr/bin/env", "-m", "prefect.engine")}, "has another user, group or python than the run"),
        ({"argv": ("PYTHON", "-m", "prefect.engine", "x")}, "the run's command is not Prefect's engine"),
        ({"argv": ("PYTHON", "-c", "print('ran')")}, "the run's command is not Prefect's engine"),
        ({"more": {"PYTHONHASHSEED": "1", "LC_ALL": "C"}}, "another value of LC_ALL, PYTHONHASHSEED than the run"),
    ],
)
async def test_a_run_that_does_not_suit_the_interpreter_starts_cold(
    spawner: SpawnerUnderTest, changes: dict[str, object], problem: str
) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        spec = flow_spec(spawner, "run-1", "print('ran')")
        if "more" in changes:
            changes = {"environment": {**spec.environment, **changes["more"]}}  # type: ignore[dict-item]
        if "argv" in changes:
            argv = tuple(spec.argv[0] if word == "PYTHON" else word for word in changes["argv"])  # type: ignore[attr-defined]
            changes = {"argv": argv}
        record = await run_to_end(link, replace(spec, **changes))  # type: ignore[arg-type]
        assert record.start == "cold"
        assert record.start_problem is not None and problem in record.start_problem
        assert record.exit is not None


@needs_root
@pytest.mark.usefixtures("library")
async def test_a_run_of_another_user_starts_cold(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner, user="daemon"))
        os.chmod(spawner.home, 0o777)
        record = await run_to_end(link, flow_spec(spawner, "run-1", "import os; print(os.getuid())", user="games"))
        assert record.start == "cold" and "another user, group or python" in (record.start_problem or "")
        assert spawner.output("run-1").strip() != "1"


async def test_an_interpreter_that_still_imports_forks_nothing(spawner: SpawnerUnderTest) -> None:
    make_prefect(
        spawner,
        init="import os, time\nif 'FLOW' not in os.environ: time.sleep(1000)\n",
    )
    async with spawner.link() as link:
        await link.client.spawn(warm_spec(spawner))
        record = await run_to_end(link, flow_spec(spawner, "run-1", "print('ran')"))
        assert (record.start, record.start_problem) == ("cold", "warm interpreter warm-1 attempt 0 is not ready")
        assert spawner.output("run-1") == "ran\n"
        await link.client.stop(key=WARM, attempt=0, reason="evict")
        await link.until(WARM, "exited")


@pytest.mark.usefixtures("library")
async def test_a_second_request_gets_the_same_run(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        spec = flow_spec(spawner, "run-1", STAY)
        first, second = await asyncio.gather(link.client.spawn(spec), link.client.spawn(spec))
        assert first.identity == second.identity is not None
        await link.client.stop(key="run-1", attempt=0, reason="cancel", timeout_s=0.0)
        await link.until("run-1", "exited")


@pytest.mark.usefixtures("library")
async def test_a_stop_that_comes_during_the_fork_stops_the_run(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        warm = await start_warm(link, warm_spec(spawner))
        os.kill(pid_of(warm), signal.SIGSTOP)  # so that the fork takes until it goes on
        started = asyncio.create_task(link.client.spawn(flow_spec(spawner, "run-1", STAY)))
        stopping = await asyncio.wait_for(stop_soon(link, "run-1"), 60)
        assert (stopping.phase, stopping.identity) == ("starting", None)
        os.kill(pid_of(warm), signal.SIGCONT)
        assert (await started).start == "warm"
        ended = await link.until("run-1", "exited")
        assert ended.stop_reason == "cancel" and ended.exit is not None and ended.exit.signal is not None


async def stop_soon(link: Link, key: str) -> Record:
    while True:
        record = await link.client.stop(key=key, attempt=0, reason="cancel", timeout_s=0.0)
        if record is not None:
            return record
