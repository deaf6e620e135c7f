"""systemd's journal, spoken to in its own protocol: one entry is one datagram of KEY=value lines.

Invariants: sending never waits: what journald does not take at once is kept, up to a bound, and what is beyond the
bound is counted and said once journald takes entries again; an entry travels whole, also one that fits no datagram;
nobody writes an entry of ours by a line break in a value.
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
_SEND_BUFFER = 8 * 2**20  # as libsystemd asks for; the kernel gives what it may
_WAITING = 1000  # entries
_WAITING_BYTES = 4 * 2**20
_RETRY_S = 1.0
_FAREWELL_S = 1.0
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

Fields = Mapping[str, str | bytes]


def is_journal(journal_stream: str | None, fd: int) -> bool:
    """Whether `fd` is the stream that JOURNAL_STREAM names: the variable is inherited, also by who redirects."""
    try:
        facts = os.fstat(fd)
    except OSError:
        return False
    return journal_stream == f"{facts.st_dev}:{facts.st_ino}"


def reach(path: str = SOCKET) -> Journald | None:
    """The journal's socket; None where it cannot be used."""
    try:
        return Journald(path=path)
    except OSError:
        return None


def encode(fields: Fields) -> bytes:
    """The fields as journald reads them. Names that it would refuse are made ones it takes."""
    return b"".join(_field(_name(name), value) for name, value in fields.items())


def _name(name: str) -> bytes:
    return _NOT_IN_NAMES.sub("_", name.upper()).lstrip("_0123456789")[:64].encode("ascii") or b"UNNAMED"


def _field(name: bytes, value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
    if data.isascii() and b"\n" not in data:
        return b"%s=%s\n" % (name, data)
    return b"%s\n%s%s\n" % (name, struct.pack("<Q", len(data)), data)


class Journald:
    """The journal's socket. Raises OSError when made where it cannot be used."""

    def __init__(self, *, path: str = SOCKET, identifier: str = "runnerd") -> None:
        self._path = path
        self._identifier = identifier
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._guard = threading.Lock()  # entries keep their order, whichever thread they come from
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as trial:
                trial.connect(path)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def send(self, entry: bytes) -> bool:
        """Send it now; False when journald does not take it now."""
        try:
            # By its address each time: a journald that was started anew may have another socket there.
            self._socket.sendto(entry, self._path)
        except OSError as error:
            return error.errno in (errno.EMSGSIZE, errno.ENOBUFS) and self._send_file(entry)
        return True

    def _send_file(self, entry: bytes) -> bool:
        """What fits no datagram goes as a sealed file in memory, which journald need not copy to trust."""
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

    # --- the daemon's own log: nothing of it is lost while there is room to keep it -----------------------------

    def log(self, fields: Fields) -> None:
        """Send it after what waits; keep it while journald takes nothing, and count it when too much is kept."""
        entry = encode({**fields, "SYSLOG_IDENTIFIER": self._identifier})
        with self._guard:
            if self._flushed() and self.send(entry):
                return
            if len(self._waiting) < _WAITING and self._waiting_bytes + len(entry) <= _WAITING_BYTES:
                self._waiting.append(entry)
                self._waiting_bytes += len(entry)
            else:
                self._lost += 1

    def flush(self) -> bool:
        """Send what waits; whether nothing does any more."""
        with self._guard:
            return self._flushed()

    def _flushed(self) -> bool:
        while self._waiting:
            if not self.send(self._waiting[0]):
                return False
            self._waiting_bytes -= len(self._waiting.popleft())
        if self._lost:
            words = f"{self._lost} entries of this log were lost: journald did not take them"
            fields = {"MESSAGE": words, "PRIORITY": "4", "SYSLOG_IDENTIFIER": self._identifier}
            if not self.send(encode(fields)):
                return False
            self._lost = 0
        return True

    async def run(self) -> None:
        """Send what waits also when nothing new is logged."""
        while True:
            await asyncio.sleep(_RETRY_S)
            self.flush()

    def close(self) -> None:
        """Say the last words, with a moment's patience: the loop is over and nobody waits for it."""
        end = time.monotonic() + _FAREWELL_S
        while not self.flush() and time.monotonic() < end:
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            self._socket.close()
