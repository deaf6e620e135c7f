"""Send a run the intent behind its stop, before the signal: the supervisor's side of Prefect 3's control channel.

The run's process connects to a port on 127.0.0.1, sends the token from its environment as one line, and acknowledges an
intent, one byte, with `a`. The spawner signals after that. A process that speaks version 2 sends a hello first, gets
one, and may send a receipt in the end: what state it has reported itself. The spawner acknowledges the receipt and
passes it on unread, in the run's record.

* A token is valid for one run and one connection, and appears in no log, in no file and on no command line.
* Any process on the host can connect; whatever it sends, its own connection is closed and nothing else happens.
* The channel is optional: a run that is not connected is signalled without an intent, and needs no receipt.
* The first of the two, an acknowledged intent or a receipt, is the last that is read from a connection.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.io.log import log
from runnerd.spawner.io.loop import READ, Loop
from runnerd.spawner.runs import frames

INTENTS = {"cancel": b"c", "reschedule": b"r", "relinquish": b"q"}  # the bytes are Prefect's

_TOKEN_TIMEOUT_S = 5.0
_ACKNOWLEDGE_TIMEOUT_S = 1.0
_ACCEPT_RETRY_S = 1.0
_TOKEN_MAX_BYTES = 256
_CONNECTION_MAX_BYTES = _TOKEN_MAX_BYTES + 1 + frames.FRAMES_MAX_BYTES  # of all that a run's process sends in its life
_SAVED_RECEIPT_MAX_BYTES = 512  # Prefect's have about 150, and the records of all runs are sent as one message
_MAX_UNIDENTIFIED = 32  # connections that have not sent a token

RunId = tuple[str, int]


class IntentConnection:
    """One connection; `run` is None until the peer has sent the token of a run."""

    def __init__(self, sock: socket.socket, loop: Loop) -> None:
        self.sock = sock
        self.run: RunId | None = None
        self.received = bytearray()  # and not yet taken
        self.greeted = False  # the process has sent its hello
        self.sends_receipt = False
        self._count = 0
        self._loop = loop

    def receive(self) -> bool:
        """Read what has arrived; False when the peer has closed or has sent too much."""
        try:
            data = self.sock.recv(_CONNECTION_MAX_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.received += data
        self._count += len(data)
        return bool(data) and self._count <= _CONNECTION_MAX_BYTES

    def send(self, data: bytes) -> bool:
        """Send a few bytes; False when the peer is gone, or reads nothing."""
        try:
            return self.sock.send(data) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        """Close the connection and drop its timer."""
        self._loop.cancel_timer(self)
        if self.sock.fileno() >= 0:
            self._loop.unwatch_fd(self.sock.fileno())
            self.sock.close()


class IntentServer:
    """Listens for the runs' connections and sends intents."""

    def __init__(self, *, loop: Loop) -> None:
        self._loop = loop
        self._listener: socket.socket | None = None
        self._tokens: dict[bytes, RunId] = {}
        self._unidentified: list[IntentConnection] = []  # the oldest first
        self._connections: dict[RunId, IntentConnection] = {}
        self._on_answer: dict[RunId, Callable[[bool], None]] = {}  # for intents sent and not yet acknowledged
        self._receipts: dict[RunId, str] = {}

    # --- the intents of a run -------------------------------------------------------------------------------

    def make_environment(self, run: RunId) -> dict[str, str]:
        """Make the variables with which the run's process connects; none when the spawner cannot listen."""
        try:
            port = self._listen()
        except OSError as error:
            log(f"key={run[0]} attempt={run[1]} cannot listen for its control channel: {error.strerror}; going without")
            return {}
        token = os.urandom(32).hex()
        self._tokens[token.encode()] = run
        return {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": token}

    def is_connected(self, run: RunId) -> bool:
        """Return whether the run's process has connected, a connection that waits to be accepted included."""
        if run not in self._connections:
            self._accept_pending()
        return run in self._connections

    def send_intent(self, run: RunId, intent: str, on_answer: Callable[[bool], None]) -> None:
        """Send an intent to a connected run; `on_answer` gets, within a second, whether the run acknowledged it."""
        connection = self._connections[run]
        self._on_answer[run] = on_answer
        timeout = time.monotonic() + _ACKNOWLEDGE_TIMEOUT_S
        self._loop.set_timer(("intent", run), timeout, partial(self._answer, run, False))
        if not connection.send(INTENTS[intent]):
            self._close(connection)

    def close_run(self, run: RunId) -> str | None:
        """Close the connection of a run that is at its end and return its receipt, if it has sent one.

        An acknowledgement or a receipt that has arrived still counts.
        """
        for token in [token for token, owner in self._tokens.items() if owner == run]:
            del self._tokens[token]
        connection = self._connections.get(run)
        if connection is not None:
            self._read(connection)
            self._close(connection)
        return self._receipts.pop(run, None)

    def _answer(self, run: RunId, acknowledged: bool) -> None:
        self._loop.cancel_timer(("intent", run))
        on_answer = self._on_answer.pop(run, None)
        if on_answer is not None:
            on_answer(acknowledged)

    # --- connections ----------------------------------------------------------------------------------------

    def _listen(self) -> int:
        """Return the port; opened by the first call, and open from then on."""
        if self._listener is None:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                listener.bind(("127.0.0.1", 0))
                listener.listen(64)
                self._loop.watch_fd(listener.fileno(), READ, self._accept)
            except OSError:
                listener.close()
                raise
            self._listener = listener
        port: int = self._listener.getsockname()[1]
        return port

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors: the listener stays readable, so without a pause the loop would spin.
            log(f"cannot accept a run's connection: {error.strerror}")
            fd = self._listener.fileno()
            self._loop.unwatch_fd(fd)
            again = partial(self._loop.watch_fd, fd, READ, self._accept)
            self._loop.set_timer("accept a run", time.monotonic() + _ACCEPT_RETRY_S, again)
            return
        self._add_connection(sock)

    def _accept_pending(self) -> None:
        """Accept the connections that wait, and read the tokens that have arrived."""
        while self._listener is not None:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                break  # none is left; or accept fails, which the loop finds and logs
            self._add_connection(sock)
        for connection in list(self._unidentified):
            self._read(connection)

    def _add_connection(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        connection = IntentConnection(sock, self._loop)
        self._unidentified.append(connection)
        self._loop.watch_fd(sock.fileno(), READ, partial(self._read, connection))
        self._loop.set_timer(connection, time.monotonic() + _TOKEN_TIMEOUT_S, partial(self._close, connection))
        if len(self._unidentified) > _MAX_UNIDENTIFIED:
            self._close(self._unidentified[0])  # a run sends its token at once, so the oldest is the least likely

    def _read(self, connection: IntentConnection) -> None:
        open_still = connection.receive()
        if connection.run is None:
            self._identify(connection)
        if connection.run is not None:
            open_still = self._read_frames(connection, connection.run) and open_still
        if not open_still:
            self._close(connection)

    def _identify(self, connection: IntentConnection) -> None:
        token, ended, rest = bytes(connection.received).partition(b"\n")
        run = self._tokens.pop(token, None) if ended else None
        if run is not None:
            self._unidentified.remove(connection)
            self._loop.cancel_timer(connection)
            connection.run, connection.received = run, bytearray(rest)
            self._connections[run] = connection
        elif ended or len(token) > _TOKEN_MAX_BYTES:
            self._close(connection)

    # --- frames ---------------------------------------------------------------------------------------------

    def _read_frames(self, connection: IntentConnection, run: RunId) -> bool:
        """Handle the frames that are there; False when the connection is to be closed."""
        try:
            while (frame := frames.take_frame(connection.received)) is not None:
                if not self._handle_frame(connection, run, frame):
                    return False
        except frames.Malformed:
            return False
        return True

    def _handle_frame(self, connection: IntentConnection, run: RunId, frame: bytes) -> bool:
        if frame == frames.ACKNOWLEDGED:
            self._answer(run, True)
            return False
        if not frames.is_hello(frame):
            self._take_receipt(connection, run, frames.receipt_contents(frame))
            return False
        if connection.greeted:
            return False
        connection.greeted, connection.sends_receipt = True, frames.offers_receipts(frame)
        return connection.send(frames.answer_to_hello(frame))

    def _take_receipt(self, connection: IntentConnection, run: RunId, contents: bytes) -> None:
        """Save a receipt and acknowledge it. One that is too long is acknowledged only: no run needs a receipt.

        The run's record is a line of JSON that later spawners have to read, so nothing but text in one line gets there.
        """
        text = contents.decode("ascii", "replace")
        if not connection.sends_receipt or not text.isascii() or not text.isprintable():
            return
        if len(text) <= _SAVED_RECEIPT_MAX_BYTES:
            self._receipts[run] = text
        connection.send(frames.RECEIVED)

    def _close(self, connection: IntentConnection) -> None:
        connection.close()
        if connection.run is None:
            if connection in self._unidentified:
                self._unidentified.remove(connection)
        elif self._connections.get(connection.run) is connection:
            del self._connections[connection.run]
            self._answer(connection.run, False)
