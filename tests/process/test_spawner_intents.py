"""The control channel: a run that speaks it is told why it ends before it is signalled, and nobody can misuse it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.processes.protocol import Record
from tests.kits.spawner import LIMIT_S, Link, SpawnerUnderTest, needs_root, open_files, wait_until

HELLO = b"\x00PF\x02\x01"  # of version 2, with receipts
needs_unshare = pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare, of util-linux")


async def start(link: Link, spawner: SpawnerUnderTest, *mode: str, key: str = "run", **settings: object) -> Record:
    record = await link.client.spawn(spawner.spec(key, mode=mode, intents=True, **settings))
    await asyncio.to_thread(spawner.wait_for_output, key)
    return record


async def spawn_and_stop(spawner: SpawnerUnderTest, *mode: str, tell: str = "cancel", **stop: float) -> Link:
    """The link, with all that was heard; the run has exited."""
    async with spawner.link() as link:
        await start(link, spawner, *mode)
        await link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent=tell, **stop)
        await link.until("run", "exited")
        return link


def exited(link: Link) -> Record:
    (record,) = (record for record in link.heard if record.phase == "exited")
    return record


@pytest.mark.parametrize(("tell", "byte"), [("cancel", "c"), ("reschedule", "r"), ("relinquish", "q")])
@pytest.mark.parametrize("version", ["1", "2"])
async def test_it_is_told_and_then_signalled(spawner: SpawnerUnderTest, tell: str, byte: str, version: str) -> None:
    record = exited(await spawn_and_stop(spawner, "speak", "acknowledge", version, tell=tell))
    assert spawner.output("run").splitlines() == ["ready", f"told {byte}", "signalled"]
    assert record.exit is not None
    assert (record.told, record.exit.code, record.stop_reason) == (True, 0, "cancel")


@pytest.mark.parametrize("how", ["deaf", "leave"])
async def test_one_that_does_not_acknowledge_is_signalled_all_the_same(spawner: SpawnerUnderTest, how: str) -> None:
    record = exited(await spawn_and_stop(spawner, "speak", how))
    assert spawner.output("run").splitlines() == ["ready", "told c", "signalled"]
    assert record.exit is not None
    assert (record.told, record.exit.code) == (False, 0)


async def test_one_that_is_not_connected_is_signalled_at_once(spawner: SpawnerUnderTest) -> None:
    link = await spawn_and_stop(spawner, "wait")
    assert link.phases("run") == ["running", "stopping", "exited"]
    record = exited(link)
    assert record.exit is not None
    assert (record.told, record.exit.signal) == (False, signal.SIGTERM)


async def test_one_that_connects_in_the_instant_it_is_to_end_is_told(spawner: SpawnerUnderTest) -> None:
    """The spawner wakes up to both at once: the run's connection and the word to end it."""
    go = spawner.home / "go"
    async with spawner.link() as link:
        spec = spawner.spec("run", mode=("speak-late", "acknowledge", str(go)), intents=True)
        await link.client.spawn(spec)
        await asyncio.to_thread(spawner.wait_for_output, "run", "waits")
        assert spawner.process is not None
        spawner.process.send_signal(signal.SIGSTOP)
        go.touch()
        await asyncio.to_thread(spawner.wait_for_output, "run", "ready")
        stopping = asyncio.create_task(link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent="cancel"))
        await asyncio.sleep(0)  # the task's turn: it writes at once
        spawner.process.send_signal(signal.SIGCONT)
        await stopping
        record = await link.until("run", "exited")
    assert spawner.output("run").splitlines() == ["waits", "ready", "told c", "signalled"]
    assert record.exit is not None
    assert (record.told, record.exit.code) == (True, 0)


async def test_nothing_is_told_unless_asked_for(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start(link, spawner, "speak", "acknowledge")
        await link.client.stop(key="run", attempt=0, reason="cancel")
        await asyncio.to_thread(wait_until, lambda: "phase=stopping" in spawner.said(), "it to be signalled")
        await link.client.stop(key="run", attempt=0, reason="cancel", timeout_s=0, prefect_intent="cancel")
        record = await link.until("run", "exited")
        assert not record.told
    assert spawner.output("run").splitlines() == ["ready"]


async def test_killed_at_once_it_is_told_nothing(spawner: SpawnerUnderTest) -> None:
    record = exited(await spawn_and_stop(spawner, "speak", "acknowledge", timeout_s=0))
    assert spawner.output("run").splitlines() == ["ready"]
    assert record.exit is not None
    assert (record.told, record.exit.signal) == (False, signal.SIGKILL)


async def test_the_deadline_does_not_wait_for_an_answer(spawner: SpawnerUnderTest) -> None:
    record = exited(await spawn_and_stop(spawner, "speak", "deaf", timeout_s=0.05))
    assert "signalled" not in spawner.output("run")
    assert record.exit is not None
    assert (record.told, record.exit.signal) == (False, signal.SIGKILL)


async def test_it_is_told_once(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start(link, spawner, "speak", "acknowledge")
        for tell in ("cancel", "reschedule", "relinquish"):
            await link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent=tell)
        record = await link.until("run", "exited")
        assert record.told
    assert spawner.output("run").splitlines() == ["ready", "told c", "signalled"]


async def test_a_run_that_takes_too_long_is_told_to_leave_its_state_alone(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        spec = spawner.spec("run", mode=("speak", "acknowledge"), intents=True, runtime_max_s=0.5)
        await link.client.spawn(spec)
        record = await link.until("run", "exited")
        assert (record.told, record.stop_reason) == (True, "timeout")
    assert spawner.output("run").splitlines() == ["ready", "told q", "signalled"]


async def test_spawner_killed_while_it_waits_for_an_answer(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start(link, spawner, "speak", "deaf")
        await link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent="cancel", timeout_s=600)
    spawner.end(signal.SIGKILL)
    spawner.start()
    async with spawner.link() as link:
        record = await link.until("run", "exited")
        assert (record.told, record.stop_reason) == (False, "cancel")
    assert spawner.output("run").splitlines() == ["ready", "told c", "signalled"]


async def test_there_is_no_such_intent(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start(link, spawner, "wait")
        with pytest.raises(SpawnerError, match="tell must be one of cancel, reschedule, relinquish"):
            await link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent="explode")
        assert link.phases("run") == ["running"]
        await link.client.stop(key="run", attempt=0, reason="cancel", timeout_s=0)


# --- tokens -----------------------------------------------------------------------------------------------------


async def access_of(spawner: SpawnerUnderTest, key: str, *, intents: bool = True) -> tuple[str | None, str | None]:
    """What a run is given to connect."""
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec(key, mode=("facts",), intents=intents))
        await link.until(key, "exited")
    environment = json.loads(spawner.output(key))["environment"]
    return environment.get("PREFECT__CONTROL_PORT"), environment.get("PREFECT__CONTROL_TOKEN")


async def test_tokens_are_each_runs_own_and_kept_nowhere(spawner: SpawnerUnderTest) -> None:
    assert await access_of(spawner, "plain", intents=False) == (None, None)
    one, two = await access_of(spawner, "one"), await access_of(spawner, "two")
    assert one[0] == two[0] is not None
    assert one[1] is not None
    assert two[1] is not None
    assert one[1] != two[1]
    kept = "".join(path.read_text() for path in spawner.records.iterdir()) + spawner.said()
    assert one[1] not in kept
    assert two[1] not in kept


class Stranger:
    """Somebody on this host who connects."""

    def __init__(self, port: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", int(port)), timeout=LIMIT_S)

    def say(self, what: bytes) -> None:
        self.socket.sendall(what)

    def is_turned_away(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


@contextmanager
def connected(port: str, *said: bytes) -> Iterator[Stranger]:
    stranger = Stranger(port)
    with stranger.socket:
        for what in said:
            stranger.say(what)
        yield stranger


async def access_of_live(link: Link, spawner: SpawnerUnderTest, key: str = "run") -> tuple[str, str]:
    """Of a run that does not connect by itself: the test does, in its place."""
    record = await start(link, spawner, "wait", key=key)
    assert record.identity is not None
    with open(f"/proc/{record.identity.pid}/environ", encoding="utf-8") as file:
        environment = dict(item.split("=", 1) for item in file.read().split("\0") if item)
    return environment["PREFECT__CONTROL_PORT"], environment["PREFECT__CONTROL_TOKEN"]


WRONG = [
    b"\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"0" * 64 + b"\n",
    b"x" * 257,
    b"\x00PF\x02\x01" + b"\xff" * 300,
    b"a" * 65536,
]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
async def test_who_has_no_token_is_turned_away(spawner: SpawnerUnderTest, wrong: bytes) -> None:
    async with spawner.link() as link:
        port, _ = await access_of_live(link, spawner)
        with connected(port, wrong) as stranger:
            assert await asyncio.to_thread(stranger.is_turned_away)
        await link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent="cancel")
        record = await link.until("run", "exited")
        assert not record.told


async def test_a_token_serves_once_and_dies_with_its_run(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        port, token = await access_of_live(link, spawner)
        line = token.encode() + b"\n"
        with connected(port, line[:10], line[10:] + HELLO) as child:
            assert child.socket.recv(10) == HELLO
            with connected(port, line) as second:
                assert await asyncio.to_thread(second.is_turned_away)
            await link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent="cancel", timeout_s=600)
            assert child.socket.recv(10) == b"c"
            child.say(b"a")
            record = await link.until("run", "exited")
            assert record.told
            assert await asyncio.to_thread(child.is_turned_away)
        port, token = await access_of_live(link, spawner, "unused")
        await link.client.stop(key="unused", attempt=0, reason="cancel", timeout_s=0)
        await link.until("unused", "exited")
        with connected(port, token.encode() + b"\n") as late:
            assert await asyncio.to_thread(late.is_turned_away)


async def test_one_that_babbles_is_cut_off(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        port, token = await access_of_live(link, spawner)
        with connected(port, token.encode() + b"\n", b"a" * 4096) as child:
            assert await asyncio.to_thread(child.is_turned_away)
        await link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent="cancel")
        record = await link.until("run", "exited")
        assert not record.told


async def test_who_says_nothing_is_turned_away_and_keeps_nobody_out(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        port, _ = await access_of_live(link, spawner, "idle")
        silent = [Stranger(port) for _ in range(60)]
        await start(link, spawner, "speak", "acknowledge")
        await link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent="cancel")
        record = await link.until("run", "exited")
        assert record.told
        for stranger in silent:
            assert await asyncio.to_thread(stranger.is_turned_away)
            stranger.socket.close()
        await link.client.stop(key="idle", attempt=0, reason="cancel", timeout_s=0)
        await link.until("idle", "exited")
    assert spawner.process is not None
    pid = spawner.process.pid

    def sockets() -> int:
        return sum(name.startswith("socket:") for name in open_files(pid))

    wait_until(lambda: sockets() == 2, "the two listeners to be all that is open")


@needs_root
@needs_unshare
async def test_where_it_cannot_listen_the_run_starts_without(idle_spawner: SpawnerUnderTest) -> None:
    no_ports = 'echo 1-65535 > /proc/sys/net/ipv4/ip_local_reserved_ports; exec "$@"'
    idle_spawner.start(through=("unshare", "--net", "/bin/sh", "-c", no_ports, "sh"))
    assert await access_of(idle_spawner, "run") == (None, None)
    assert "key=run attempt=0 cannot listen for its control channel: " in idle_spawner.said()
