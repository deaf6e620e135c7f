"""One contract, two spawners: what FakeSpawner does for tests by a clock that jumps, the real one does too."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.core.process import ForkOf, LaunchSpec, Warm
from runnerd.launch.warm_interpreter import warm_argv, warm_environment
from runnerd.processes.client import SpawnerClient
from runnerd.processes.protocol import Record
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.spawner import LIMIT_S, SpawnerUnderTest

SLEEP = ("sleep", "1000")


class Subject:
    """A spawner, a client of it, and what the client heard."""

    def __init__(self, real: SpawnerUnderTest | None, folder: Path) -> None:
        self.real = real
        self.fake = FakeSpawner()
        self._folder = folder
        self.heard: list[Record] = []
        self.news = asyncio.Event()
        self.lost = asyncio.Event()
        self.client: Any = self.new_client()

    def new_client(self) -> Any:
        if self.real is None:
            return self.fake.make_client(self._hear, self.lost.set)
        return SpawnerClient(socket_path=self.real.socket, on_record=self._hear, on_lost=self.lost.set)

    def _hear(self, record: Record) -> None:
        self.heard.append(record)
        self.news.set()

    async def until(self, phase: str, attempt: int = 1) -> Record:
        async with asyncio.timeout(LIMIT_S):
            while True:
                for record in self.heard:
                    if (record.phase, record.attempt) == (phase, attempt):
                        return record
                self.news.clear()
                await self.news.wait()

    def spec(self, **changes: Any) -> LaunchSpec:
        given: dict[str, Any] = {
            "key": "r-1",
            "attempt": 1,
            "argv": SLEEP,
            "environment": {"PATH": "/usr/bin:/bin"},
            "working_directory": "/",
            "output": str(self._folder / "out"),
            "own": True,
            **changes,
        }
        return LaunchSpec(**given)

    async def until_warm(self, state: str) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not any(record.warm is not None and record.warm.state == state for record in self.heard):
                self.news.clear()
                await self.news.wait()

    def environment_with_prefect(self) -> dict[str, str]:
        """An environment in which an engine is found, which only waits."""
        package = self._folder / "library" / "prefect"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "engine.py").write_text("import time\nif __name__ == '__main__': time.sleep(1000)\n")
        return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(package.parent)}

    async def wait_for_output(self, text: str) -> None:
        if self.real is not None:
            async with asyncio.timeout(LIMIT_S):
                while text not in (self._folder / "out").read_text():
                    await asyncio.sleep(0.01)

    async def exit(self) -> None:
        """The process of r-1 ends by itself, by SIGTERM."""
        if self.real is None:
            self.fake.exit("r-1", signal=15)
        else:
            await self.client.signal(key="r-1", attempt=1, signal=15)


Connected = Callable[[], AbstractAsyncContextManager[Subject]]


@pytest.fixture(params=["fake", "real"])
def connected(request: pytest.FixtureRequest, tmp_path: Path) -> Connected:
    """A connected client of the fake and of the real spawner in turn."""
    real = request.getfixturevalue("spawner") if request.param == "real" else None

    @asynccontextmanager
    async def connect() -> AsyncIterator[Subject]:
        subject = Subject(real, real.home if real is not None else tmp_path)
        assert await subject.client.connect() == []
        try:
            yield subject
        finally:
            await subject.client.close()

    return connect


async def test_what_is_known_is_not_started_again(connected: Connected) -> None:
    async with connected() as at:
        first = await at.client.spawn(at.spec())
        assert (first.key, first.attempt, first.exit, first.error) == ("r-1", 1, None, None)
        await at.until("running")
        again = await at.client.spawn(at.spec(argv=("true",)))
        assert again.identity == first.identity is not None
        other = await at.client.spawn(at.spec(attempt=2))
        assert other.identity != first.identity
        assert len(await at.client.list()) == 2
        for attempt in (1, 2):
            await at.client.stop(key="r-1", attempt=attempt, reason="cancel", timeout_s=0.0)
            await at.until("exited", attempt)


async def test_a_stop_tells_its_reason_and_the_signal(connected: Connected) -> None:
    async with connected() as at:
        await at.client.spawn(at.spec())
        await at.client.stop(key="r-1", attempt=1, reason="cancel")
        ended = await at.until("exited")
        assert (ended.stop_reason, ended.exit and ended.exit.signal) == ("cancel", 15)
        assert [record.phase for record in at.heard if record.phase in ("stopping", "exited")] == ["stopping", "exited"]


async def test_a_stop_with_no_grace_kills(connected: Connected) -> None:
    async with connected() as at:
        await at.client.spawn(at.spec())
        await at.client.stop(key="r-1", attempt=1, reason="evict", timeout_s=0.0)
        ended = await at.until("exited")
        assert (ended.stop_reason, ended.exit and ended.exit.signal) == ("evict", 9)
        assert "killing" in [record.phase for record in at.heard]


async def test_a_later_stop_can_only_end_it_sooner(connected: Connected) -> None:
    async with connected() as at:
        at.fake.stubborn = True
        deaf = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done")
        await at.client.spawn(at.spec(argv=deaf, stop_timeout_s=1000.0))
        await at.wait_for_output("ready")
        await at.client.stop(key="r-1", attempt=1, reason="cancel")
        await at.until("stopping")
        await at.client.stop(key="r-1", attempt=1, reason="evict", timeout_s=2000.0)
        await at.client.stop(key="r-1", attempt=1, reason="evict", timeout_s=0.0)
        ended = await at.until("exited")
        assert (ended.stop_reason, ended.exit and ended.exit.signal) == ("cancel", 9), "the first reason stays"


async def test_runtime_max_stops_it_for_that_reason(connected: Connected) -> None:
    async with connected() as at:
        await at.client.spawn(at.spec(runtime_max_s=0.2))
        ended = await at.until("exited")
        assert (ended.stop_reason, ended.exit and ended.exit.signal) == ("timeout", 15)


async def test_one_that_listens_is_told_why_it_ends(connected: Connected) -> None:
    child = str(Path(__file__).with_name("child.py"))
    speak = (sys.executable, "-I", "-S", child, "speak", "acknowledge")
    async with connected() as at:
        at.fake.hears = True
        await at.client.spawn(at.spec(argv=speak, intents=True))
        await at.wait_for_output("ready")
        await at.client.stop(key="r-1", attempt=1, reason="cancel", prefect_intent="cancel")
        ended = await at.until("exited")
        assert (ended.told, ended.exit and ended.exit.code) == (True, 0)
        assert [record.told for record in at.heard if record.phase == "stopping"] == [False, True]


async def test_one_that_does_not_listen_is_signalled(connected: Connected) -> None:
    async with connected() as at:
        await at.client.spawn(at.spec())
        await at.client.stop(key="r-1", attempt=1, reason="cancel", prefect_intent="cancel")
        ended = await at.until("exited")
        assert (ended.told, ended.exit and ended.exit.signal) == (False, 15)
        assert [record.told for record in at.heard if record.phase == "stopping"] == [False]


async def test_runtime_max_tells_it_to_leave_its_state_alone(connected: Connected) -> None:
    child = str(Path(__file__).with_name("child.py"))
    speak = (sys.executable, "-I", "-S", child, "speak", "acknowledge")
    async with connected() as at:
        at.fake.hears = True
        await at.client.spawn(at.spec(argv=speak, intents=True, runtime_max_s=3.0))
        ended = await at.until("exited")
        assert (ended.stop_reason, ended.told, ended.exit and ended.exit.code) == ("timeout", True, 0)


async def test_what_could_not_start_is_a_record_with_an_error(connected: Connected) -> None:
    async with connected() as at:
        at.fake.start_error = "no such interpreter /opt/x/python"
        record = await at.client.spawn(at.spec(argv=("/opt/x/python",)))
        assert (record.phase, record.exit) == ("exited", None)
        assert record.error is not None
        assert record.error.message == "cannot start: no such interpreter /opt/x/python"
        assert await at.client.forget(key="r-1", attempt=1)


async def test_what_nobody_knows(connected: Connected) -> None:
    async with connected() as at:
        assert await at.client.stop(key="r-1", attempt=1, reason="cancel") is None
        assert not await at.client.forget(key="r-1", attempt=1)


async def test_only_what_has_ended_can_be_forgotten(connected: Connected) -> None:
    async with connected() as at:
        await at.client.spawn(at.spec())
        with pytest.raises(SpawnerError) as refusal:
            await at.client.forget(key="r-1", attempt=1)
        assert refusal.value.refused
        await at.exit()
        await at.until("exited")
        assert await at.client.forget(key="r-1", attempt=1)
        assert await at.client.list() == []


async def test_a_later_client_is_told_all_there_is(connected: Connected) -> None:
    async with connected() as at:
        first = await at.client.spawn(at.spec())
        await at.exit()
        await at.until("exited")
        other = at.new_client()
        (record,) = await other.connect()
        assert (record.phase, record.identity, record.exit and record.exit.signal) == ("exited", first.identity, 15)
        await other.close()


async def test_a_closed_client_asks_nothing(connected: Connected) -> None:
    async with connected() as at:
        await at.client.close()
        with pytest.raises(SpawnerError) as error:
            await at.client.spawn(at.spec())
        assert not error.value.refused
        assert not at.lost.is_set()


READY = "{'ready': {'python': '3.11.7', 'prefect': '3.9.1', 'import_s': 1.5}}"


def interpreter(says: str) -> tuple[str, ...]:
    """A program that says this as a warm interpreter, and refuses to fork."""
    program = (
        "import json, socket\nsock = socket.socket(fileno=3)\n"
        f"sock.send(json.dumps({says}).encode())\n"
        "while request := sock.recv(4096):\n"
        "    sock.send(json.dumps({'refused': json.loads(request)['fork'], 'why': 'on purpose'}).encode())\n"
    )
    return (sys.executable, "-I", "-S", "-c", program)


async def test_a_warm_interpreter_says_that_it_is_ready(connected: Connected) -> None:
    async with connected() as at:
        record = await at.client.spawn(at.spec(argv=interpreter(READY), forks=True))
        assert record.warm in (Warm(state="importing"), READY_WARM)
        await at.until_warm("ready")
        (listed,) = await at.client.list()
        assert (listed.phase, listed.warm, listed.start) == ("running", READY_WARM, "cold")
        await at.client.stop(key="r-1", attempt=1, reason="evict")
        ended = await at.until("exited")
        assert (ended.warm, ended.exit and ended.exit.signal) == (READY_WARM, 15)


async def test_a_warm_interpreter_that_fails_says_why_and_ends(connected: Connected) -> None:
    async with connected() as at:
        at.fake.warm_problem = "cannot import pandas"
        await at.client.spawn(at.spec(argv=interpreter("{'failed': 'cannot import pandas'}"), forks=True))
        await at.until_warm("failed")
        ended = await at.until("exited")
        assert ended.warm == Warm(state="failed", problem="cannot import pandas")


async def test_a_run_starts_cold_where_it_cannot_be_forked(connected: Connected) -> None:
    async with connected() as at:
        engine = (sys.executable, "-m", "prefect.engine")
        absent = await at.client.spawn(at.spec(key="r-2", argv=engine, fork_of=ForkOf(key="r-1", attempt=1)))
        assert (absent.start, absent.start_problem) == ("cold", "warm interpreter r-1 attempt 1 does not run")
        await at.client.spawn(at.spec(argv=interpreter(READY), forks=True))
        await at.until_warm("ready")
        at.fake.fork_problem = "warm interpreter r-1 attempt 1: on purpose"
        refused = await at.client.spawn(at.spec(key="r-3", argv=engine, fork_of=ForkOf(key="r-1", attempt=1)))
        assert (refused.start, refused.start_problem) == ("cold", "warm interpreter r-1 attempt 1: on purpose")
        for key in ("r-1", "r-2", "r-3"):
            await at.client.stop(key=key, attempt=1, reason="cancel", timeout_s=0.0)


async def test_a_run_is_forked_of_an_interpreter_that_is_ready(connected: Connected) -> None:
    async with connected() as at:
        environment = at.environment_with_prefect()
        spec = at.spec(argv=warm_argv(sys.executable), environment={**environment, **warm_environment()}, forks=True)
        await at.client.spawn(spec)
        await at.until_warm("ready")
        engine = (sys.executable, "-m", "prefect.engine")
        changes: dict[str, Any] = {"argv": engine, "environment": environment, "fork_of": ForkOf(key="r-1", attempt=1)}
        record = await at.client.spawn(at.spec(key="r-2", **changes))
        assert (record.start, record.start_problem, record.warm) == ("warm", None, None)
        for key in ("r-2", "r-1"):
            await at.client.stop(key=key, attempt=1, reason="cancel", timeout_s=0.0)


async def test_a_spawner_says_that_it_can_fork_runs(connected: Connected) -> None:
    async with connected() as at:
        assert at.client.hello.forks


READY_WARM = Warm(state="ready", python="3.11.7", prefect="3.9.1", import_s=1.5)
