"""Tells a run why it is about to be ended: the supervisor's side of Prefect 3's control channel, version 1.

The child connects to a port on the loopback, presents the token from its environment on a line of its own, and from
then on answers one byte that says why with `a`; the signal comes after that. A version 2 child sends a hello first,
which a version 1 supervisor leaves unanswered.

* A token is for one run and one connection, and is in no log, no file and on no command line.
* Anybody on the host can connect. Whatever he sends, all that follows is that his own connection is closed.
* Without the channel everything ends as before: a run that is not connected is signalled without being told.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.io.log import log
from runnerd.spawner.io.loop import READ, Loop

INTENTS = {"cancel": b"c", "reschedule": b"r", "relinquish": b"q"}

_ACKNOWLEDGED = b"a"
_HELLO_S = 5.0
_ACKNOWLEDGE_S = 1.0
_ACCEPT_AGAIN_S = 1.0
_LINE_BYTES = 256
_MOST_BYTES = 1024  # of all that a child ever has to say
_MOST_UNKNOWN = 32

RunId = tuple[str, int]


class Channel:
    """One connection. `run` is None until it has presented a token."""

    def __init__(self, sock: socket.socket, loop: Loop) -> None:
        self.sock = sock
        self.run: RunId | None = None
        self.heard = bytearray()
        self._loop = loop

    def receive(self) -> bytes | None:
        """What came; None when it has closed, or says more than there is to say."""
        try:
            data = self.sock.recv(_MOST_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            return None
        self.heard += data
        return data if data and len(self.heard) <= _MOST_BYTES else None

    def send(self, word: bytes) -> bool:
        try:
            return self.sock.send(word) == len(word)
        except OSError:
            return False

    def close(self) -> None:
        self._loop.cancel(self)
        if self.sock.fileno() >= 0:
            self._loop.unwatch(self.sock.fileno())
            self.sock.close()


class Intents:
    def __init__(self, *, loop: Loop) -> None:
        self._loop = loop
        self._listener: socket.socket | None = None
        self._tokens: dict[bytes, RunId] = {}
        self._unknown: list[Channel] = []  # the oldest first
        self._channels: dict[RunId, Channel] = {}
        self._told: dict[RunId, Callable[[bool], None]] = {}  # who waits for an answer

    # --- a run's --------------------------------------------------------------------------------------------

    def offer(self, run: RunId) -> dict[str, str]:
        """What the run's environment needs to connect; nothing when we cannot listen."""
        try:
            port = self._listen()
        except OSError as error:
            log(f"key={run[0]} attempt={run[1]} cannot be told why it ends: cannot listen: {error.strerror}")
            return {}
        token = os.urandom(32).hex()
        self._tokens[token.encode()] = run
        return {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": token}

    def connected(self, run: RunId) -> bool:
        """Whether it has connected by now: one that did so a moment ago, before we looked, is to be told too."""
        if run not in self._channels:
            self._catch_up()
        return run in self._channels

    def tell(self, run: RunId, intent: str, told: Callable[[bool], None]) -> None:
        """Tell a connected run; `told` is called once, now or within a second: whether it has acknowledged."""
        channel = self._channels[run]
        self._told[run] = told
        self._loop.timer(("told", run), time.monotonic() + _ACKNOWLEDGE_S, partial(self._settle, run, False))
        if not channel.send(INTENTS[intent]):
            self._lose(channel)

    def drop(self, run: RunId) -> None:
        """The run is at its end. If it was told and has acknowledged, that still counts."""
        for token in [token for token, owner in self._tokens.items() if owner == run]:
            del self._tokens[token]
        channel = self._channels.get(run)
        if channel is not None:
            self._hear(channel)
            self._lose(channel)

    def _settle(self, run: RunId, acknowledged: bool) -> None:
        self._loop.cancel(("told", run))
        told = self._told.pop(run, None)
        if told is not None:
            told(acknowledged)

    # --- connections ----------------------------------------------------------------------------------------

    def _listen(self) -> int:
        """The port. Opened when first needed, and open from then on."""
        if self._listener is None:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                listener.bind(("127.0.0.1", 0))
                listener.listen(64)
                self._loop.watch(listener.fileno(), READ, self._accept)
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
            # Out of descriptors: it stays ready, so without a pause this would spin.
            log(f"cannot accept a run's connection: {error.strerror}")
            fd = self._listener.fileno()
            self._loop.unwatch(fd)
            again = partial(self._loop.watch, fd, READ, self._accept)
            self._loop.timer("accept a run", time.monotonic() + _ACCEPT_AGAIN_S, again)
            return
        self._admit(sock)

    def _catch_up(self) -> None:
        """Hear all that was said until now."""
        while self._listener is not None:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                break  # none is left; or something is wrong, which the loop will find
            self._admit(sock)
        for channel in list(self._unknown):
            self._hear(channel)

    def _admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        channel = Channel(sock, self._loop)
        self._unknown.append(channel)
        self._loop.watch(sock.fileno(), READ, partial(self._hear, channel))
        self._loop.timer(channel, time.monotonic() + _HELLO_S, partial(self._lose, channel))
        if len(self._unknown) > _MOST_UNKNOWN:
            self._lose(self._unknown[0])  # a run speaks at once, so who has been silent for longest goes

    def _hear(self, channel: Channel) -> None:
        data = channel.receive()
        if data and channel.run is None:
            self._recognise(channel)
        elif data and _ACKNOWLEDGED in data and channel.run is not None:
            self._settle(channel.run, True)
        if data is None:
            self._lose(channel)

    def _recognise(self, channel: Channel) -> None:
        token, ended, _ = bytes(channel.heard).partition(b"\n")
        run = self._tokens.pop(token, None) if ended else None
        if run is not None:
            self._unknown.remove(channel)
            self._loop.cancel(channel)
            channel.run = run
            self._channels[run] = channel
        elif ended or len(token) > _LINE_BYTES:
            self._lose(channel)

    def _lose(self, channel: Channel) -> None:
        channel.close()
        if channel.run is None:
            if channel in self._unknown:
                self._unknown.remove(channel)
        elif self._channels.get(channel.run) is channel:
            del self._channels[channel.run]
            self._settle(channel.run, False)
