"""One spawner a directory: when it starts, and when it goes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.core.problems import Problems
from runnerd.core.process import LaunchSpec
from runnerd.processes.client import SpawnerClient, start_spawner
from runnerd.processes.link import SpawnerLink
from runnerd.processes.protocol import spec_to_json
from runnerd.spawner.proc.identity import read_start_ticks
from tests.kits.links import running_link
from tests.kits.nouns import LogLines, log_to
from tests.kits.raw_client import raw
from tests.kits.spawner import LIMIT_S, SpawnerUnderTest, wait_until

# --- one spawner ----------------------------------------------------------------------------------------------


def test_second_spawner_of_a_directory_is_refused(spawner: SpawnerUnderTest) -> None:
    first = spawner.process
    second = spawner.start_only()
    try:
        with second:
            assert second.wait(LIMIT_S) == 75
    finally:
        spawner.process = first
    assert f"cannot serve {spawner.runtime_dir}: another spawner does" in spawner.said()
    with raw(spawner) as client:
        assert client.ask(b'{"id": 1, "op": "list"}') == {"reply": 1, "ok": []}


def test_socket_of_a_killed_spawner_is_replaced(spawner: SpawnerUnderTest) -> None:
    spawner.end(signal.SIGKILL)
    assert os.path.exists(spawner.socket)
    spawner.start()
    with raw(spawner):
        pass


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--runtime-dir", "/tmp/x"], 64, "cannot start: --socket is missing"),
        (["--socket", "/tmp/x/s"], 64, "cannot start: --runtime-dir is missing"),
        (["--socket"], 64, "cannot start: --socket is missing"),
        (["--explode"], 64, "cannot start: there is no option --explode"),
        (
            ["--socket=/a", "--runtime-dir=/b", "--owner=no-such-user"],
            64,
            "cannot use --owner: there is no user 'no-such-user'",
        ),
        (["--socket=/a", "--runtime-dir=/b", "--background"], 64, "cannot start: --log is missing"),
        (["--socket=/a", "--runtime-dir=/dev/null/x"], 71, "cannot use /dev/null/x: Not a directory"),
    ],
)
def test_wrong_usage(arguments: list[str], status: int, words: str) -> None:
    command = [sys.executable, "-m", "runnerd.spawner", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert result.returncode == status
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_socket_path_that_cannot_be(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.arguments = ["--socket", "/nowhere/s", "--runtime-dir", str(idle_spawner.runtime_dir)]
    idle_spawner.start_only()
    assert idle_spawner.wait() == 71
    assert "cannot serve /nowhere/s: No such file or directory" in idle_spawner.said()


# --- when it goes ---------------------------------------------------------------------------------------------


async def test_idle_spawner_goes_when_the_last_client_has_gone(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start("--exit-when-idle")
    async with idle_spawner.link() as link:
        await link.client.spawn(idle_spawner.spec("run", "true"))
        await link.until("run", "exited")
    assert idle_spawner.wait() == 0
    assert [path.name for path in idle_spawner.records.iterdir()] == ["run.0.json"]


async def test_spawner_with_a_live_run_is_not_idle(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start("--exit-when-idle")
    async with idle_spawner.link() as link:
        record = await link.client.spawn(idle_spawner.spec("run", mode=("wait",)))
        assert record.identity is not None
        pid = record.identity.pid
    async with idle_spawner.link() as link:
        assert link.replayed["run", 0].phase == "running"
    os.kill(pid, signal.SIGKILL)
    assert idle_spawner.wait() == 0
    (path,) = idle_spawner.records.iterdir()
    assert json.loads(path.read_text())["exit"]["signal"] == signal.SIGKILL


def test_spawner_nobody_comes_to_goes(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start_only("--exit-when-idle", program=("spawner-impatient",))
    assert idle_spawner.wait() == 0
    assert "exiting: idle" in idle_spawner.said()


async def test_start_spawner_in_the_background(idle_spawner: SpawnerUnderTest) -> None:
    spawner = idle_spawner

    async def start() -> None:
        await start_spawner(
            socket_path=spawner.socket,
            runtime_dir=str(spawner.runtime_dir),
            owner=None,
            log_file=str(spawner.log),
        )

    await start()
    async with spawner.link() as link:
        assert link.client.hello is not None
        pid = link.client.hello.pid
        assert os.getsid(pid) != os.getsid(0)
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        with pytest.raises(SpawnerError, match=r"cannot start the spawner: .*another spawner does"):
            await start()
        pid = pid
    ticks = read_start_ticks(pid)
    wait_until(lambda: read_start_ticks(pid) is None or read_start_ticks(pid) != ticks, "it to go, as it is idle")
    assert spawner.said().startswith("runnerd-spawner: serving ")


async def test_start_spawner_tells_why_it_cannot(idle_spawner: SpawnerUnderTest) -> None:
    with pytest.raises(SpawnerError, match=r"cannot start the spawner: .*cannot use /dev/null/x"):
        await start_spawner(
            socket_path=idle_spawner.socket,
            runtime_dir="/dev/null/x",
            owner=None,
            log_file=str(idle_spawner.log),
        )


async def test_spawner_that_is_to_make_room_stays_for_its_runs(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start()
    async with idle_spawner.link() as link:
        record = await link.client.spawn(idle_spawner.spec("run", mode=("wait",)))
        assert record.identity is not None
        assert not await link.client.retire()
        os.kill(record.identity.pid, signal.SIGKILL)
        await link.until("run", "exited")
        assert await link.client.retire()
    assert idle_spawner.wait() == 0
    (path,) = idle_spawner.records.iterdir()
    assert json.loads(path.read_text())["exit"]["signal"] == signal.SIGKILL  # for the next one


# --- a run that is asked for as it goes -----------------------------------------------------------------------


def lines_of(spec: LaunchSpec) -> tuple[bytes, bytes]:
    spawn = {"op": "spawn", "id": "spawn", "spec": spec_to_json(spec)}
    return b'{"op": "retire", "id": "retire"}\n', json.dumps(spawn).encode() + b"\n"


async def exit_code_of(spawner: SpawnerUnderTest, spec: LaunchSpec) -> int | None:
    """Ask for the run, also if it was asked for before, and wait for its end."""
    async with spawner.link() as link:
        await link.client.spawn(spec)
        record = await link.until(spec.key, "exited")
        return record.exit.code if record.exit is not None else None


async def test_a_run_asked_for_in_the_same_write_as_retire_is_left_to_the_next_spawner(
    idle_spawner: SpawnerUnderTest,
) -> None:
    for number in range(3):
        idle_spawner.start()
        spec = idle_spawner.spec(f"run-{number}", mode=("exit", "7"))
        with raw(idle_spawner) as client:
            client.socket.sendall(b"".join(lines_of(spec)))
            assert client.read() == {"reply": "retire", "ok": True}
            assert client.read_to_end() == b""
        assert idle_spawner.wait() == 0
        assert not (idle_spawner.records / f"run-{number}.0.json").exists(), "the run was started"
        idle_spawner.start()
        assert await exit_code_of(idle_spawner, spec) == 7
        idle_spawner.end()


async def test_a_run_asked_for_before_retire_in_the_same_write_keeps_the_spawner(
    idle_spawner: SpawnerUnderTest,
) -> None:
    idle_spawner.start()
    spec = idle_spawner.spec("run", mode=("exit", "7"))
    with raw(idle_spawner) as client:
        client.socket.sendall(b"".join(reversed(lines_of(spec))))
        while (answer := client.read()).get("reply") != "retire":
            pass
        assert answer["ok"] is False
    assert await exit_code_of(idle_spawner, spec) == 7


@pytest.mark.parametrize("first", ["retire", "spawn"])
async def test_no_exit_status_is_lost_when_retire_and_a_run_are_asked_for_at_once(
    idle_spawner: SpawnerUnderTest, first: str
) -> None:
    idle_spawner.start()
    for number in range(5):
        spec = idle_spawner.spec(f"run-{number}", mode=("exit", "7"))
        async with idle_spawner.link() as link:
            asks = {"retire": link.client.retire(), "spawn": link.client.spawn(spec)}
            order = [first, *(asks.keys() - {first})]
            answers = await asyncio.gather(*(asks[op] for op in order), return_exceptions=True)
        if answers[order.index("retire")] is not False:  # True, or an error: it had ended before the second request
            assert idle_spawner.wait() == 0
            idle_spawner.start()
        assert await exit_code_of(idle_spawner, spec) == 7


async def test_a_link_has_the_next_spawner_start_what_the_retired_one_did_not(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start()

    async def start_next() -> None:
        assert await asyncio.to_thread(idle_spawner.wait) == 0
        await asyncio.to_thread(idle_spawner.start)

    link = SpawnerLink(
        make_client=lambda on_record, on_lost: SpawnerClient(
            socket_path=idle_spawner.socket, on_record=on_record, on_lost=on_lost
        ),
        start_spawner=start_next,
        problems=Problems(),
        log=log_to(LogLines()),
    )
    async with asyncio.timeout(LIMIT_S), running_link(link):
        for number in range(5):
            spec = idle_spawner.spec(f"run-{number}", "/bin/sh", "-c", "echo once; exit 7")
            retired, record = await asyncio.gather(link.retire(), link.run_to_end(spec))
            assert retired
            assert record is not None
            assert record.exit is not None
            assert record.exit.code == 7
            assert idle_spawner.output(spec.key) == "once\n"
