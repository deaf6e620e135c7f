"""Sends entries to systemd's journal in its native protocol: one entry is one datagram of KEY=value lines.

Invariants: sending never blocks: of the daemon's own log, entries that journald does not take now are queued up to a
bound; entries beyond the bound are dropped, counted, and the count is logged once journald takes entries again. An
entry too large for a datagram is sent whole, as a file. A line break in a value cannot forge a field.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
_SEND_BUFFER_BYTES = 8 * 2**20  # as libsystemd asks for; the kernel gives at most net.core.wmem_max
_QUEUE_MAX_ENTRIES = 1000
_QUEUE_MAX_BYTES = 4 * 2**20
_RETRY_S = 1.0
_FLUSH_AT_CLOSE_S = 1.0
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

Fields = Mapping[str, str | bytes]


def is_journal_stream(journal_stream: str | None, fd: int) -> bool:
    """Whether `fd` is the stream that JOURNAL_STREAM names: a process whose output is redirected inherits it too."""
    try:
        facts = os.fstat(fd)
    except OSError:
        return False
    return journal_stream == f"{facts.st_dev}:{facts.st_ino}"


def open_journald(path: str = SOCKET) -> Journald | None:
    """Open the journal's socket; None where that is impossible."""
    try:
        return Journald(path=path)
    except OSError:
        return None


def encode(fields: Fields) -> bytes:
    """Serialize the fields for journald; characters that journald refuses in names are replaced."""
    return b"".join(_field(_name(name), value) for name, value in fields.items())


def _name(name: str) -> bytes:
    return _NOT_IN_NAMES.sub("_", name.upper()).lstrip("_0123456789")[:64].encode("ascii") or b"UNNAMED"


def _field(name: bytes, value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
    if data.isascii() and b"\n" not in data:
        return b"%s=%s\n" % (name, data)
    return b"%s\n%s%s\n" % (name, struct.pack("<Q", len(data)), data)


class Journald:
    """Sends entries through the journal's socket. Raises OSError at construction where the socket cannot be used."""

    def __init__(self, *, path: str = SOCKET, identifier: str = "runnerd") -> None:
        self._path = path
        self._identifier = identifier
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._lost = 0  # entries dropped since the last one was sent
        self._lock = threading.Lock()  # keeps the order of entries that come from several threads
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as trial:
                trial.connect(path)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def send(self, entry: bytes) -> bool:
        """Send one entry now; False when journald does not take the entry now."""
        try:
            # Not connected: a restarted journald has another socket at the same path.
            self._socket.sendto(entry, self._path)
        except OSError as error:
            return error.errno in (errno.EMSGSIZE, errno.ENOBUFS) and self._send_file(entry)
        return True

    def _send_file(self, entry: bytes) -> bool:
        """Send an entry too large for a datagram as a memfd, sealed, so that journald may map instead of copy it."""
        try:
            file = os.memfd_create("runnerd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.truncate(file, len(entry))
                with open(file, "wb", closefd=False) as writer:
                    writer.write(entry)
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file))]
                self._socket.sendmsg([b""], rights, 0, self._path)
            finally:
                os.close(file)
        except OSError:
            return False
        return True

    # --- the daemon's own log, which is queued while journald takes nothing ---------------------------------------

    def log(self, fields: Fields) -> None:
        """Send an entry after the queued ones; queue the entry when journald takes nothing, or drop it."""
        entry = encode({**fields, "SYSLOG_IDENTIFIER": self._identifier})
        with self._lock:
            if self._send_queue() and self.send(entry):
                return
            if len(self._queue) < _QUEUE_MAX_ENTRIES and self._queue_bytes + len(entry) <= _QUEUE_MAX_BYTES:
                self._queue.append(entry)
                self._queue_bytes += len(entry)
            else:
                self._lost += 1

    def flush(self) -> bool:
        """Send the queued entries; True when none is left."""
        with self._lock:
            return self._send_queue()

    def _send_queue(self) -> bool:
        while self._queue:
            if not self.send(self._queue[0]):
                return False
            self._queue_bytes -= len(self._queue.popleft())
        if self._lost:
            words = f"{self._lost} entries of this log were lost: journald did not take them"
            fields = {"MESSAGE": words, "PRIORITY": "4", "SYSLOG_IDENTIFIER": self._identifier}
            if not self.send(encode(fields)):
                return False
            self._lost = 0
        return True

    async def run(self) -> None:
        """Retry the queued entries every second, so that they are sent also when nothing new is logged."""
        while True:
            await asyncio.sleep(_RETRY_S)
            self.flush()

    def close(self) -> None:
        """Send the queued entries for at most a second, blocking, because the event loop is over; close the socket."""
        end = time.monotonic() + _FLUSH_AT_CLOSE_S
        while not self.flush() and time.monotonic() < end:
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            self._socket.close()
