"""A client of the spawner's socket that may send anything."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

from tests.kits.spawner import LIMIT_S, SpawnerUnderTest


class RawClient:
    """Speaks whatever bytes it is told to."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(path)
        self._lines = self.socket.makefile("rb")

    def read(self) -> dict[str, object]:
        answer: dict[str, object] = json.loads(self._lines.readline())
        return answer

    def read_to_end(self) -> bytes:
        """What is sent until the spawner closes the connection."""
        try:
            return self._lines.read()
        except ConnectionResetError:  # it closed without having read all that was sent
            return b""

    def ask(self, line: bytes) -> dict[str, object]:
        self.socket.sendall(line + b"\n")
        return self.read()

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@contextlib.contextmanager
def raw(spawner: SpawnerUnderTest) -> Iterator[RawClient]:
    client = RawClient(spawner.socket)
    try:
        assert client.read()["event"] == "hello"
        yield client
    finally:
        client.close()


def kind(answer: dict[str, object]) -> tuple[object, object]:
    error = answer["error"]
    assert isinstance(error, dict)
    assert error["message"]
    return answer["reply"], error["kind"]
