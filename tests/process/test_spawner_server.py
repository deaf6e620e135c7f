"""The spawner's socket: who may speak, and what nonsense does."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import subprocess

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.processes.client import SpawnerClient
from runnerd.processes.protocol import Hello
from runnerd.spawner.io.messages import MAX_LINE_BYTES, NAME_MAX
from tests.kits.raw_client import kind, raw
from tests.kits.spawner import LIMIT_S, SYSTEM_PYTHON, SpawnerUnderTest, needs_root, needs_system_python, wait_until

NOBODY = pwd.getpwnam("nobody").pw_uid
SAY_HELLO = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
print(sock.makefile().readline(), end="")
"""
# --- nonsense -------------------------------------------------------------------------------------------------

SPEC = {
    "key": "run",
    "attempt": 0,
    "argv": ["true"],
    "environment": {},
    "working_directory": "/",
    "output": "/dev/null",
    "own": True,
}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"id": 1}',
        b'{"id": 1, "op": "explode"}',
        b'{"id": 1, "op": ["spawn"]}',
        b'{"id": 1, "op": "' + b"x" * 100_000 + b'"}',
        b'{"id": ' + b"[" * 900 + b"]" * 900 + b', "op": "ping"}',
        b'{"id": 1e400, "op": "ping"}',
        b'{"id": NaN, "op": "ping"}',
        b'{"id": 100000000000000000000, "op": "ping"}',
        b'{"id": ' + b"9" * 5000 + b', "op": "ping"}',
        b'{"id": "' + b"x" * 1000 + b'", "op": "ping"}',
        b'{"id": true, "op": "ping"}',
        b'{"id": 1, "op": "ping", "op": "retire"}',
        '{"id": 1, "op": "ping"}'.encode("utf-16"),
        b'{"id": 1, "op": "stop", "key": "run", "attempt": 0, "reason": "a\\nb"}',
        b'{"id": 1, "op": "stop", "key": "run", "attempt": 0, "reason": "' + b"x" * 100_000 + b'"}',
        b'{"id": 1, "op": "stop", "key": "run", "attempt": 1e400, "reason": "cancel"}',
        b'{"id": 1, "op": "stop", "key": "run", "attempt": 0, "reason": "cancel", "timeout_s": 1e400}',
        b'{"id": 1, "op": "spawn"}',
        b'{"id": 1, "op": "stop", "key": "run", "attempt": 0}',
        b'{"id": 1, "op": "stop", "key": "../run", "attempt": 0, "reason": "cancel"}',
        b'{"id": 1, "op": "stop", "key": "run", "attempt": 0, "reason": "cancel", "timeout_s": NaN}',
        b'{"id": 1, "op": "signal", "key": "run", "attempt": 0, "signal": 0}',
        *(
            json.dumps({"id": 1, "op": "spawn", "spec": {**SPEC, **wrong}}).encode()
            for wrong in (
                {"key": ".hidden"},
                {"key": "a/b"},
                {"key": "k" * 129},
                {"attempt": -1},
                {"attempt": True},
                {"argv": []},
                {"argv": [""]},
                {"argv": ["a\0b"]},
                {"argv": "true"},
                {"environment": None},
                {"environment": {"A=B": "c"}},
                {"environment": {"A": 1}},
                {"environment": {"A": "\ud800"}},
                {"environment": {"A" * 100_000: 1}},
                {"environment": {"\ud800": "a"}},
                {"working_directory": "relative"},
                {"working_directory": "/a\0b"},
                {"working_directory": "/" * 5000},
                {"working_directory": "/\ud800"},
                {"output": "/a\0b"},
                {"result": "/" + "x" * 5000},
                {"user": "a\nb"},
                {"user": "u" * 1000},
                {"group": "\x9b"},
                {"output": None},
                {"umask": 0o1000},
                {"nice": 20},
                {"rlimits": {"no_such": [1, 1]}},
                {"rlimits": {"nofile": [1]}},
                {"rlimits": {"nofile": [1, 2**63]}},
                {"rlimits": {"x" * 100_000: [1, 1]}},
                {"memory_max_bytes": 10**20},
                {"cpu_quota_percent": 10**20},
                {"stop_signal": 65},
                {"runtime_max_s": -1},
            )
        ),
    ],
)
def test_nonsense_is_answered_and_ends_nothing(spawner: SpawnerUnderTest, line: bytes) -> None:
    with raw(spawner) as client:
        answer = client.ask(line)
        assert kind(answer)[1] == "bad-request"
        assert len(json.dumps(answer)) < 500
        assert client.ask(b'{"id": 2, "op": "list"}') == {"reply": 2, "ok": []}
    assert "Traceback" not in spawner.said()


def test_oversized_line_is_answered_once_and_skipped(spawner: SpawnerUnderTest) -> None:
    with raw(spawner) as client:
        answer = client.ask(b'{"id": 1, "op": "' + b"x" * (MAX_LINE_BYTES + 100_000) + b'"}')
        assert kind(answer) == (None, "bad-request")
        assert client.ask(b'{"id": 2, "op": "list"}') == {"reply": 2, "ok": []}


def test_many_requests_in_one_piece_and_one_in_many(spawner: SpawnerUnderTest) -> None:
    with raw(spawner) as client:
        client.socket.sendall(b"".join(b'{"id": %d, "op": "list"}\n' % number for number in range(100)))
        assert [client.read()["reply"] for _ in range(100)] == list(range(100))
        for byte in b'{"id": "a", "op": "list"}\n':
            client.socket.sendall(bytes([byte]))
        assert client.read()["reply"] == "a"


def test_client_that_does_not_read_is_dropped(spawner: SpawnerUnderTest) -> None:
    with raw(spawner) as deaf, raw(spawner) as other:
        # An answer carries the request's id back, so this is 30 MiB that nobody reads.
        requests = (json.dumps({"op": "list", "id": "x" * NAME_MAX}).encode() + b"\n") * 1000
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(120):
                deaf.socket.sendall(requests)
            while deaf.socket.recv(2**20):
                pass
            raise BrokenPipeError
        assert other.ask(b'{"id": 2, "op": "list"}') == {"reply": 2, "ok": []}
    wait_until(lambda: "dropped a client that does not read" in spawner.said(), "the log line")


def test_client_that_vanishes_ends_nothing(spawner: SpawnerUnderTest) -> None:
    for _ in range(20):
        with raw(spawner) as client:
            client.socket.sendall(b'{"id": 1, "op": "list"}\n{"id": 2, "op"')
    with raw(spawner) as client:
        assert client.ask(b'{"id": 3, "op": "list"}') == {"reply": 3, "ok": []}


def test_a_run_of_a_year_does_not_end_the_spawner(spawner: SpawnerUnderTest) -> None:
    """Its timer is the only one, and further away than the kernel lets a process wait."""
    spec = {**SPEC, "argv": ["/bin/sleep", "1000"], "output": str(spawner.home / "out"), "runtime_max_s": 366 * 86400}
    with raw(spawner) as client:
        client.socket.sendall(json.dumps({"id": 1, "op": "spawn", "spec": spec}).encode() + b"\n")
        assert [client.read().get("event"), client.read().get("reply")] == ["started", 1]
        assert "ok" in client.ask(b'{"id": 2, "op": "ping"}')
        stop = {"id": 3, "op": "stop", "key": "run", "attempt": 0, "reason": "cancel", "timeout_s": 0}
        client.socket.sendall(json.dumps(stop).encode() + b"\n")
        while client.read().get("event") != "exited":
            pass
    assert "Traceback" not in spawner.said()


def test_keys_of_a_newer_client_are_ignored(spawner: SpawnerUnderTest) -> None:
    spec = {**SPEC, "output": str(spawner.home / "out"), "colour": "blue"}
    with raw(spawner) as client:
        client.socket.sendall(json.dumps({"id": 1, "op": "spawn", "spec": spec, "haste": 9}).encode() + b"\n")
        assert client.read()["event"] == "started"


# --- who may speak --------------------------------------------------------------------------------------------


def hello_as_nobody(spawner: SpawnerUnderTest) -> subprocess.CompletedProcess[str]:
    command = [SYSTEM_PYTHON, "-I", "-c", SAY_HELLO, spawner.socket]
    return subprocess.run(
        command, user="nobody", extra_groups=[], text=True, capture_output=True, timeout=LIMIT_S, cwd="/"
    )


@needs_root
@needs_system_python
def test_socket_is_closed_to_others(spawner: SpawnerUnderTest) -> None:
    assert os.stat(spawner.socket).st_mode & 0o777 == 0o600
    assert "PermissionError" in hello_as_nobody(spawner).stderr


@needs_root
@needs_system_python
def test_others_are_turned_away_even_if_the_socket_is_open(spawner: SpawnerUnderTest) -> None:
    os.chmod(spawner.socket, 0o666)
    answer = json.loads(hello_as_nobody(spawner).stdout)
    assert kind(answer) == (None, "not-permitted")
    assert str(NOBODY) in answer["error"]["message"]


@needs_root
@needs_system_python
@pytest.mark.parametrize("owner", [str(NOBODY), "nobody"])
def test_owner_may_speak(idle_spawner: SpawnerUnderTest, owner: str) -> None:
    idle_spawner.start("--owner", owner)
    assert os.stat(idle_spawner.socket).st_uid == NOBODY
    assert json.loads(hello_as_nobody(idle_spawner).stdout)["event"] == "hello"


async def test_client_says_why_it_was_turned_away(idle_spawner: SpawnerUnderTest) -> None:
    """A server of our own, because the test's own user is never turned away."""

    async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"reply": null, "error": {"kind": "not-permitted", "message": "uid 5 may not"}}\n')
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(turn_away, idle_spawner.socket):
        with pytest.raises(SpawnerError, match="cannot use the spawner: uid 5 may not") as refusal:
            async with idle_spawner.link():
                pass
        assert refusal.value.refused


def test_ping_says_who_answers(spawner: SpawnerUnderTest) -> None:
    with raw(spawner) as client:
        answer = client.ask(b'{"id": 1, "op": "ping"}')["ok"]
        assert (
            isinstance(answer, dict) and {"version", "pid", "uptime_s", "runs"} <= set(answer) and answer["runs"] == 0
        )


async def test_client_says_what_is_missing(idle_spawner: SpawnerUnderTest) -> None:
    with pytest.raises(SpawnerError, match=r"cannot reach the spawner at .*: No such file or directory"):
        async with idle_spawner.link():
            pass
    client = SpawnerClient(socket_path="/none", on_record=lambda _: None, on_lost=lambda: None)
    with pytest.raises(SpawnerError, match="cannot ask the spawner to list: not connected"):
        await client.list()


async def test_client_closes_though_the_spawner_reads_no_more(idle_spawner: SpawnerUnderTest) -> None:
    """Or neither a stop of the daemon nor a new connection would come to an end."""
    done = asyncio.Event()

    async def say_hello_only(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"event": "hello", "version": "9", "pid": 1, "records": []}\n')
        await done.wait()
        writer.close()

    async with await asyncio.start_unix_server(say_hello_only, idle_spawner.socket):
        client = SpawnerClient(
            socket_path=idle_spawner.socket, on_record=lambda _: None, on_lost=lambda: None, timeout_s=1.0
        )
        await client.connect()
        with pytest.raises(SpawnerError, match="did not answer within 1s"):
            await client.forget(key="k" * 2**24, attempt=0)
        async with asyncio.timeout(60):
            await client.close()
        done.set()


async def test_client_waits_no_longer_than_its_limit(idle_spawner: SpawnerUnderTest) -> None:
    done = asyncio.Event()

    async def say_hello_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"event": "hello", "version": "9", "pid": 1, "records": [], "more": {}}\n')
        await done.wait()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(say_hello_only, idle_spawner.socket):
        client = SpawnerClient(
            socket_path=idle_spawner.socket,
            on_record=lambda _: None,
            on_lost=lambda: None,
            timeout_s=0.05,
        )
        assert await client.connect() == []
        assert client.hello == Hello(version="9", pid=1, limits={}, why=None)  # an older one says no more
        with pytest.raises(SpawnerError, match=r"did not answer within 50ms"):
            await client.list()
        done.set()
        await client.close()
