"""Sends requests to the control API, HTTP/1.1 over a Unix socket, for runnerctl and for scripts in Python.

Imports only a few small modules of the standard library, because runnerctl must start fast: http.client alone would
double its start time. The client implements only what runnerd's server uses: one request per connection, and a body
with a Content-Length or in chunks.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from runnerd.core.errors import ControlError
from runnerd.system.paths import SYSTEM_RUNTIME, SYSTEMD, control_socket

Json = Any
TIMEOUT_S = 30.0
NOTICE_AFTER_S = 5.0  # how long people wait for an answer without a word
PREFECT_TIMEOUT_S = 150.0  # of a request for which runnerd calls Prefect; above runnerd's own limit for those calls
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Interrupted(ControlError):
    """A stream ended early because runnerd stopped or restarted. Runs are not affected; send the request again."""


class ControlClient:
    """Sends requests to the control API at `socket_path`, one connection each.

    `timeout_s` limits connecting, each send and each receive; a stream has no limit after its head has arrived.
    `on_wait` is called once, when an answer takes longer than NOTICE_AFTER_S.
    """

    def __init__(
        self, socket_path: str, *, timeout_s: float = TIMEOUT_S, on_wait: Callable[[], None] | None = None
    ) -> None:
        self.socket_path = socket_path
        self._timeout_s = timeout_s
        self._on_wait = on_wait

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """Return the document at `path`. Raises ControlError."""
        return self._ask("GET", target(path, query), None, self._timeout_s)

    def post(self, path: str, body: Json = None, *, timeout_s: float | None = None) -> Json:
        """Send `body` as JSON and return the document of the answer. Raises ControlError."""
        return self._ask("POST", path, json.dumps(body or {}).encode(), timeout_s or self._timeout_s)

    def stream(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[bytes]:
        """Yield the blocks of a streamed answer as they arrive. Raises ControlError; Interrupted when cut short."""
        with self._connect(self._timeout_s) as connection, connection.makefile("rb") as answer:
            headers = self._exchange(connection, answer, "GET", target(path, query), None)
            connection.settimeout(None)
            try:
                yield from _chunks(answer, headers)
            except (OSError, ValueError):
                raise Interrupted("runnerd closed the connection in the middle of its answer") from None

    def lines(self, path: str, query: Mapping[str, str] | None = None) -> Iterator[Json]:
        """Yield the documents of an NDJSON stream as they arrive. Raises as `stream` does."""
        rest = b""
        for block in self.stream(path, query):
            *whole, rest = (rest + block).split(b"\n")
            yield from (json.loads(line) for line in whole if line)

    # --- inside ---

    def _ask(self, method: str, where: str, body: bytes | None, timeout_s: float) -> Json:
        with self._connect(timeout_s) as connection, connection.makefile("rb") as answer:
            headers = self._exchange(connection, answer, method, where, body)
            try:
                return json.loads(b"".join(_chunks(answer, headers)))
            except (OSError, ValueError):
                raise ControlError("runnerd closed the connection in the middle of its answer", status=502) from None

    def _connect(self, timeout_s: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(self.socket_path)
        except OSError as error:
            connection.close()
            raise unreachable(self.socket_path, error, systemd=os.path.isdir(SYSTEMD)) from None
        return connection

    def _exchange(
        self, connection: socket.socket, answer: BinaryIO, method: str, where: str, body: bytes | None
    ) -> dict[str, str]:
        """Send the request, read the head of the answer and return its headers, names in lower case."""
        head = f"{method} {where} HTTP/1.1\r\nHost: runnerd\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        try:
            _send(connection, head.encode("ascii") + b"\r\n" + (body or b""))
            self._notice_wait(connection)
            status, headers = _read_head(answer)
        except TimeoutError:
            detail = f"runnerd at {self.socket_path} does not answer; see journalctl -u runnerd"
            raise ControlError(detail, status=504) from None
        except (OSError, ValueError):
            detail = f"runnerd at {self.socket_path} closed the connection without an answer; is it stopping?"
            raise ControlError(detail, status=502) from None
        if status >= 400 and headers.get("content-type") != "application/json":
            raise ControlError(_detail(answer, headers, status), status=status)
        return headers

    def _notice_wait(self, connection: socket.socket) -> None:
        """Call `on_wait` if nothing of the answer arrives in time. Raises OSError."""
        if self._on_wait is None:
            return
        limit_s = connection.gettimeout()
        connection.settimeout(NOTICE_AFTER_S)
        try:
            connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            on_wait, self._on_wait = self._on_wait, None
            on_wait()
        connection.settimeout(limit_s)


def target(path: str, query: Mapping[str, str] | None) -> str:
    """Return the request target of `path`, which is quoted already, with `query`."""
    pairs = "&".join(f"{quote(name)}={quote(value)}" for name, value in (query or {}).items())
    return f"{path}?{pairs}" if pairs else path


def quote(text: str) -> str:
    """Percent-encode one path segment or query value.

    Not urllib.parse.quote: its import takes longer than the whole rest of this module.
    """
    raw = text.encode(errors="surrogateescape")
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw)


def _send(connection: socket.socket, data: bytes) -> None:
    """Send `data`; ignore a connection that the server closes early.

    A server that refuses a request closes before it has read all of it; its answer can still be read.
    """
    try:
        view = memoryview(data)
        while view:  # MSG_NOSIGNAL: SIGPIPE ends runnerctl, which is meant for its standard output only
            view = view[connection.send(view, socket.MSG_NOSIGNAL) :]
    except (BrokenPipeError, ConnectionResetError):
        pass


def _read_head(answer: BinaryIO) -> tuple[int, dict[str, str]]:
    protocol, status, *_ = answer.readline(65536).decode("ascii").split(" ", 2)
    if not protocol.startswith("HTTP/1."):
        raise ValueError("not HTTP")
    headers: dict[str, str] = {}
    while line := answer.readline(65536).strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return int(status), headers


def _chunks(answer: BinaryIO, headers: Mapping[str, str]) -> Iterator[bytes]:
    """Yield the body in the chunks that arrive. Raises ValueError when the body is cut short, or has no length."""
    if headers.get("transfer-encoding") != "chunked":
        length = int(headers.get("content-length", ""))
        body = answer.read(length)
        if len(body) != length:
            raise ValueError("cut short")
        yield body
        return
    while size := int(answer.readline(64), 16):
        block = answer.read(size + 2)
        if len(block) != size + 2:
            raise ValueError("cut short")
        yield block[:-2]


def _detail(answer: BinaryIO, headers: Mapping[str, str], status: int) -> str:
    try:
        return str(json.loads(b"".join(_chunks(answer, headers)))["detail"])
    except (OSError, ValueError, LookupError, TypeError):
        return f"runnerd answered with status {status}"


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def unreachable(path: str, error: OSError, *, systemd: bool) -> ControlError:
    """Say why there is no connection to the socket, and what to do; `systemd`: it is the service manager of this host.

    Only the host's own runnerd is a unit of systemd's, not that of a user or in another directory.
    """
    why = (error.strerror or str(error)).lower()
    if isinstance(error, FileNotFoundError):
        why = "no such file"
    if isinstance(error, PermissionError):
        advice = "you need to be root or in group runnerd"
        return ControlError(f"cannot reach runnerd at {path}: {why}; {advice}", status=403)
    unit = systemd and path == control_socket(SYSTEM_RUNTIME)
    advice = "is it running? " + ("systemctl start runnerd" if unit else "start it: runnerd, or runnerd --daemonize")
    if error.errno is None:  # Python's own refusal, before the kernel was asked
        why, advice = f"{why}: at most 107 bytes", "name the control socket by a shorter path"
    elif isinstance(error, ConnectionRefusedError | NotADirectoryError) and not _is_socket(path):
        why, advice = "this is not a socket", "name the control socket, such as /run/runnerd/control.sock"
    return ControlError(f"cannot reach runnerd at {path}: {why}; {advice}")
