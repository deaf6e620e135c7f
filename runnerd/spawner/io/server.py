"""Serve the spawner's Unix socket: admit clients by uid, read request lines, write answers and events.

No client can disturb another: a malformed request gets an error line, and a client that does not read is disconnected.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.io.log import log, log_traceback
from runnerd.spawner.io.loop import READ, WRITE, Loop
from runnerd.spawner.io.messages import MAX_LINE_BYTES, Fields, RequestRefused, bad_request, parse_object

MAX_UNREAD_BYTES_PER_CLIENT = 8 * 2**20
_READ_BYTES = 65536
_ACCEPT_RETRY_S = 1.0

Answer = Callable[[Fields, Callable[[object], None]], None]


class Connection:
    """Reads the requests of one client and writes the answers and events for it."""

    def __init__(
        self, *, sock: socket.socket, loop: Loop, answer: Answer, closed: Callable[[Connection], None]
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._answer = answer
        self._closed = closed
        self._in = bytearray()
        self._skipping = False  # inside a line that was too long: drop the rest of that line
        self._out = bytearray()
        self._open = True
        self._loop.watch_fd(sock.fileno(), READ, self._on_ready)

    def send(self, message: object) -> None:
        """Write one message; close the connection when too many bytes are unread."""
        if not self._open:
            return
        self._out += json.dumps(message).encode() + b"\n"
        self._flush()
        if len(self._out) > MAX_UNREAD_BYTES_PER_CLIENT:
            log("dropped a client that does not read")
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.unwatch_fd(self._sock.fileno())
            self._sock.close()
            self._closed(self)

    def _on_ready(self) -> None:
        self._flush()
        if self._open:
            self._read()

    def _flush(self) -> None:
        try:
            if self._out:
                del self._out[: self._sock.send(self._out)]
        except BlockingIOError:
            pass  # sent when the socket is writable again
        except OSError:
            self.close()
            return
        self._loop.watch_fd(self._sock.fileno(), READ | WRITE if self._out else READ, self._on_ready)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._in += data
        while self._open and (end := self._in.find(b"\n")) >= 0:
            line = bytes(self._in[:end])
            del self._in[: end + 1]
            self._handle_line(line)
        if len(self._in) > MAX_LINE_BYTES:
            self._handle_line(bytes(self._in))
            self._in.clear()
            self._skipping = True

    def _handle_line(self, line: bytes) -> None:
        if self._skipping:
            self._skipping = False
            return
        number: object = None
        try:
            if len(line) > MAX_LINE_BYTES:
                raise bad_request(f"a request must not be longer than {MAX_LINE_BYTES} bytes")
            request = parse_object(line)
            number = request.id()
            self._answer(request, partial(self._reply, number))
        except RequestRefused as refusal:
            self._refuse(number, refusal.kind, str(refusal))
        except Exception as error:  # a fault in one request must not end the spawner of all runs
            log_traceback()
            self._refuse(number, "internal", f"{type(error).__name__}: {error}")

    def _reply(self, number: object, result: object) -> None:
        if isinstance(result, RequestRefused):
            self._refuse(number, result.kind, str(result))
        else:
            self.send({"reply": number, "ok": result})

    def _refuse(self, number: object, kind: str, message: str) -> None:
        self.send({"reply": number, "error": {"kind": kind, "message": message}})


class Server:
    """Accepts the clients whose uid is in `allowed`, and sends events to all of them."""

    def __init__(self, *, loop: Loop, allowed: frozenset[int]) -> None:
        self._loop = loop
        self._allowed = allowed
        self._clients: set[Connection] = set()
        self._expecting = True  # the process that started the spawner has not connected yet

    @property
    def deserted(self) -> bool:
        """True when no client is connected and none is expected."""
        return not self._clients and not self._expecting

    def expect_no_client(self) -> None:
        """Stop waiting for the first client."""
        self._expecting = False

    def broadcast(self, message: object) -> None:
        """Send `message` to every client."""
        for client in list(self._clients):
            client.send(message)

    def listen(self, listener: socket.socket, *, answer: Answer, hello: Callable[[], object]) -> None:
        """Accept clients of `listener`: each gets a `hello` first, and `answer` is called for each of its requests."""
        callback = partial(self._accept, listener, answer, hello)
        self._loop.watch_fd(listener.fileno(), READ, callback)

    def _accept(self, listener: socket.socket, answer: Answer, hello: Callable[[], object]) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors: the listener stays readable, so without a pause the loop would spin.
            log(f"cannot accept a connection: {error.strerror}")
            self._loop.unwatch_fd(listener.fileno())
            again = partial(self.listen, listener, answer=answer, hello=hello)
            self._loop.set_timer("accept", time.monotonic() + _ACCEPT_RETRY_S, again)
            return
        sock.setblocking(False)
        uid = _peer_uid(sock)
        if uid not in self._allowed:
            _refuse_client(sock, uid)
            return
        self._expecting = False
        client = Connection(sock=sock, loop=self._loop, answer=answer, closed=self._clients.discard)
        self._clients.add(client)
        client.send(hello())


def _peer_uid(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def _refuse_client(sock: socket.socket, uid: int) -> None:
    log(f"refused a client of uid {uid}")
    error = {"kind": "not-permitted", "message": f"uid {uid} may not speak to this spawner"}
    with sock:
        try:
            sock.send(json.dumps({"reply": None, "error": error}).encode() + b"\n")
        except OSError:
            return


def bind(path: str, owner: int | None) -> socket.socket:
    """Listen at `path`, where only `owner` (if given) and the spawner's own user may connect. Raises OSError.

    A socket already at `path` is replaced: the caller holds the lock, so no other spawner serves that one.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        before = os.umask(0o177)  # no other user can connect, not even before the chown
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        if owner is not None and os.geteuid() == 0:
            os.chown(path, owner, -1)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener
