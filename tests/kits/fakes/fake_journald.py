"""A datagram socket that takes entries as systemd's journald does: from datagrams, and from sealed files in memory."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LIMIT_S = 60.0
DATAGRAM_BYTES = 32 * 2**20
SEALED = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Entry = dict[str, bytes]


def parse(data: bytes) -> Entry:
    """An entry, field by field. Raises ValueError for what journald would not take."""
    found: Entry = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", data[:8])
            value, end, data = data[8 : 8 + size], data[8 + size : 9 + size], data[9 + size :]
            if len(value) != size or end != b"\n":
                raise ValueError(f"{name!r} is cut off")
        text = name.decode("ascii")
        if not text or text[0] in "_0123456789" or not text.replace("_", "A").isalnum() or text != text.upper():
            raise ValueError(f"{text!r} is no name of a field")
        found[text] = value
    return found


class FakeJournald:
    """`entries` are those taken so far, in order. It takes none while it is `stuck`."""

    def __init__(self, path: Path, *, stuck: bool = False) -> None:
        self.path = str(path)
        self.entries: list[Entry] = []
        self.files = 0  # how many of them came as files
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self._stop, self._stopped = os.pipe()
        self._thread: threading.Thread | None = None
        if not stuck:
            self.unstick()

    def unstick(self) -> None:
        self._thread = threading.Thread(target=self._take, name="journald")
        self._thread.start()

    def _take(self) -> None:
        while self._stop not in select.select([self._socket, self._stop], [], [])[0]:
            with contextlib.suppress(BlockingIOError):
                data, ancillary, _flags, _address = self._socket.recvmsg(DATAGRAM_BYTES, socket.CMSG_SPACE(4))
                self.files += bool(ancillary)
                self.entries.append(parse(_contents(ancillary) if ancillary else data))

    def messages(self, identifier: str | None = None) -> list[str]:
        chosen = [e for e in self.entries if identifier in (None, e["SYSLOG_IDENTIFIER"].decode())]
        return [entry["MESSAGE"].decode("utf-8", "replace") for entry in chosen]

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end, f"waited {LIMIT_S:g} s for {what}; the last: {self.messages()[-5:]}"
            time.sleep(0.005)

    def close(self) -> None:
        os.close(self._stopped)
        if self._thread is not None:
            self._thread.join()
        os.close(self._stop)
        self._socket.close()
        os.unlink(self.path)


def _contents(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    files = array.array("i")
    for _level, _kind, data in ancillary:
        files.frombytes(data)
    (file,) = files
    try:
        if fcntl.fcntl(file, fcntl.F_GET_SEALS) & SEALED != SEALED:
            raise ValueError("the file may still change")
        return os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)


@contextlib.contextmanager
def journald_at(path: Path, *, stuck: bool = False) -> Iterator[FakeJournald]:
    fake = FakeJournald(path, stuck=stuck)
    try:
        yield fake
    finally:
        fake.close()
