"""doctor.py: the question to a daemon that answers badly or never, which runnerctl gives up."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runnerd.cli.verbs.doctor import ask_daemon
from runnerd.control.client import ControlClient
from runnerd.core.errors import ControlError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answer(content: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n" % len(content) + content


@contextmanager
def daemon(directory: Path, doctor: bytes | None) -> Iterator[str]:
    """A daemon that is well, and whose doctor answers with these bytes, or not at all; yields its socket's path."""
    path = str(directory / "control.sock")
    kept: list[socket.socket] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # shut down
                return
            kept.append(connection)
            if b"/v1/doctor" not in connection.recv(4096):
                connection.sendall(answer(json.dumps({"ok": True}).encode()))
            elif doctor is not None:
                connection.sendall(doctor)
                connection.shutdown(socket.SHUT_WR)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(8)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in kept:
                connection.close()


def asked(directory: Path, doctor: bytes | None, *, limit_s: float = 30.0) -> ControlError:
    with daemon(directory, doctor) as path:
        found = ask_daemon(path, limit_s=limit_s)
    assert isinstance(found, ControlError)
    return found


@pytest.mark.parametrize("head", [HEAD, HEAD + b"Content-Length: many\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_an_answer_without_a_length_is_an_error(tmp_path: Path, head: bytes) -> None:
    with daemon(tmp_path, head + b"\r\n{}") as path, pytest.raises(ControlError) as error:
        ControlClient(path, timeout_s=30.0).get("/v1/doctor")
    assert error.value.status == 502


def test_an_answer_that_cannot_be_read_ends_the_question(tmp_path: Path) -> None:
    found = asked(tmp_path, answer(b"[" * 100_000))
    assert str(found).startswith("cannot read the answer of runnerd: RecursionError: ")
    assert found.status == 502


def test_a_doctor_that_never_answers_is_given_up(tmp_path: Path) -> None:
    found = asked(tmp_path, None, limit_s=0.2)
    assert str(found) == "there is no answer within 200ms"
    assert found.status == 502, "the daemon itself answers"
