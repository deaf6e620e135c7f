"""Lines to a real spawner: each gets one answer, a refused one changes nothing, and the spawner goes on."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from hypothesis import strategies as st

from tests.kits.fuzzing import NUMBERS, TEXTS, answered_in_time, fuzz
from tests.kits.raw_client import RawClient
from tests.kits.spawner import SYSTEM_PYTHON, SpawnerUnderTest

# Not `retire`, which ends a spawner without runs, as it is meant to.
OPS = ["ping", "spawn", "spawn", "spawn", "stop", "signal", "list", "forget", "retired", "hello", ""]
KEYS = ["a", "b", "..", ".a", "a/b", "A" * 128, "A" * 129]


@contextmanager
def unprivileged_spawner() -> Iterator[SpawnerUnderTest]:
    """A spawner of user nobody where that is possible: what it starts may then do as little as nobody."""
    home = Path(tempfile.mkdtemp(prefix="spawner-fuzz-"))
    home.chmod(0o755)
    shutil.copy(Path(__file__).parent.parent / "process" / "child.py", home)
    spawner = SpawnerUnderTest(home)
    nobody = "nobody" if os.geteuid() == 0 and os.access(SYSTEM_PYTHON, os.X_OK) else None
    if nobody is not None:
        os.chown(home, pwd.getpwnam(nobody).pw_uid, -1)
    try:
        spawner.start(user=nobody)
        yield spawner
    finally:
        spawner.clear()
        shutil.rmtree(home)


class Conversation:
    """One client; it asks for the records after each line, so that it knows when the line was answered."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._asked = 0

    def records(self) -> Any:
        return self._until(b'{"id": "records", "op": "list"}', "records")["ok"]

    def answer(self, line: bytes) -> dict[str, Any]:
        """Send a line; its answer, which may come after that of the next line."""
        self._client.socket.sendall(line + b"\n")
        while "reply" not in (answer := self._client.read()):
            assert answer["event"] in ("started", "changed", "exited"), answer
        return answer

    def _until(self, line: bytes, number: str) -> dict[str, Any]:
        self._client.socket.sendall(line + b"\n")
        while (answer := self._client.read()).get("reply") != number:
            assert "event" in answer, answer
        return answer


def telling(log: BinaryIO, client: RawClient) -> Callable[[bytes], None]:
    talk = Conversation(client)

    def spawner_lines(line: bytes) -> None:
        line = line.replace(b"\n", b" ")
        before = known(talk.records())
        with answered_in_time(line, elsewhere=True):
            answer = talk.answer(line)
        if "error" in answer:
            assert set(answer["error"]) == {"kind", "message"}
            assert answer["error"]["kind"] != "internal", answer
            assert 5 < len(answer["error"]["message"]) < 500
            assert answer["error"]["message"].isprintable()
            assert known(talk.records()) == before
        for record in talk.records():
            if record["phase"] == "exited":
                forget = {"op": "forget", "key": record["key"], "attempt": record["attempt"], "id": 1}
                talk.answer(json.dumps(forget).encode())
        assert b"Traceback" not in log.read()

    return spawner_lines


def known(records: list[dict[str, Any]]) -> set[tuple[str, int]]:
    return {(record["key"], record["attempt"]) for record in records}


# --- lines ----------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.text(max_size=5)
odd = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def with_odd(
    draw: st.DrawFn, right: dict[str, st.SearchStrategy[Any]], wrong: dict[str, st.SearchStrategy[Any]], most: int
) -> dict[str, Any]:
    """The fields that are right, but for some."""
    chosen = draw(st.lists(st.sampled_from(sorted(wrong)), max_size=most, unique=True))
    return {name: draw(field) for name, field in right.items()} | {name: draw(wrong[name]) for name in chosen}


def specs(home: Path) -> st.SearchStrategy[dict[str, Any]]:
    """Launch specs that are right but for a few fields. Paths are below `home`, or cannot be paths."""
    wrong_paths = ["", "relative", "/a\0b", "/" * 5000, "/\ud800", str(home / ("x" * 300)), str(home / "none" / "x")]
    paths = st.sampled_from([str(home), str(home / "f"), str(home / "child.py" / "x"), *wrong_paths]) | st.sampled_from(
        NUMBERS
    )
    right = {
        "key": st.sampled_from(KEYS),
        "attempt": st.integers(0, 2),
        "argv": st.sampled_from([["/bin/true"], ["true"], ["/nowhere"], [str(home)], ["/bin/sleep", "0"]]),
        "environment": st.just({"A": "b"}),
        "working_directory": st.just("/"),
        "output": st.sampled_from(["/dev/null", str(home / "out")]),
    }
    fields = {
        "key": odd,
        "attempt": odd,
        "argv": odd.filter(lambda value: not isinstance(value, list)) | st.just([]) | st.just(["/bin/true", "\ud800"]),
        "environment": odd,
        "working_directory": paths,
        "output": paths,
        "result": paths,
        "user": odd,
        "group": odd,
        "umask": odd,
        "nice": odd,
        "rlimits": st.dictionaries(
            st.sampled_from(["nofile", "as", "core", "INFINITY", "nproc"]) | st.sampled_from(TEXTS),
            st.lists(st.sampled_from(NUMBERS), max_size=3) | odd,
            max_size=3,
        ),
        "memory_max_bytes": odd,
        "cpu_quota_percent": odd,
        "tasks_max": odd,
        "output_max_bytes": odd,
        "runtime_max_s": odd | st.sampled_from([1e9, 0.001]),
        "intents": odd,
        "forks": odd | st.just(True),
        "fork_of": odd
        | st.fixed_dictionaries({"key": st.sampled_from(KEYS) | odd, "attempt": st.integers(0, 2) | odd}),
        "stop_signal": odd,
        "stop_timeout_s": odd | st.sampled_from([1e9, 0]),
    }
    return with_odd(right, fields, 3)  # without make_directory, which makes and removes directories


WIRES: list[Callable[[bytes], bytes]] = [
    lambda line: line,
    lambda line: line,
    lambda line: line,
    lambda line: line[: len(line) // 2],
    lambda line: line.replace(b"1", b"1e400"),
    lambda line: line.replace(b"null", b"NaN"),
    lambda line: line[:-1] + b', "id": 7, "id": 8}',
    lambda line: line[:-1] + b', "deep": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    lambda line: line[:-1] + b', "long": "' + b"x" * 5 * 2**20 + b'"}',
    lambda line: line[:-1] + b', "number": ' + b"9" * 5000 + b"}",
    lambda line: line.decode().encode("utf-16").replace(b"\n", b""),
    lambda line: b"[" * 100_000 + line,
    lambda line: line + b"\xff",
    lambda line: b"\xef\xbb\xbf" + line,
]


def lines(home: Path) -> st.SearchStrategy[bytes]:
    right = {
        "op": st.sampled_from(OPS),
        "id": st.integers(0, 9),
        "key": st.sampled_from(KEYS),
        "attempt": st.integers(0, 2),
        "reason": st.just("cancel"),
        "timeout_s": st.just(0),
        "signal": st.integers(-1, 65),
        "spec": specs(home),
    }
    requests = with_odd(right, {**dict.fromkeys(right, odd), "tell": st.sampled_from(["cancel", "pause"]) | odd}, 2)
    objects = requests.map(lambda request: json.dumps(request).encode())
    return st.tuples(st.sampled_from(WIRES), objects).map(lambda it: it[0](it[1])) | st.binary(max_size=100)


def test_spawner_lines() -> None:
    with unprivileged_spawner() as spawner:
        client = RawClient(spawner.socket)
        try:
            assert client.read()["event"] == "hello"
            with open(spawner.log, "rb") as log:
                fuzz(lines(spawner.home), telling(log, client), examples=100, found=FOUND)
        finally:
            client.close()


FOUND: list[bytes] = []
