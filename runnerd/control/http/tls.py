"""Accepts TLS connections: the certificate in force, and the handshakes, which are bounded in number and time.

Invariants: a certificate that cannot be loaded replaces none that is in force; a handshake counts as a connection from
its beginning, so that peers that never end one cannot take more places than others.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from runnerd.files.regular import open_regular

HANDSHAKE_S = 10.0
SHUTDOWN_S = 5.0  # how long a peer may take to answer the end of the connection
_NO_ROOM_S = 1.0  # until the next try after accept() found no descriptor or no memory
_STREAM_LIMIT = 64 * 2**10

Stamp = tuple[tuple[int, int, int], ...]


class CertificateFiles:
    """Loads a certificate and its key, and again when one of the files is another. All methods may block."""

    def __init__(self, certificate: str, key: str | None) -> None:
        self.names = (certificate, key)
        self._stamp: Stamp | None = None
        self.context: ssl.SSLContext | None = None

    def refresh(self) -> None:
        """Load the files if they have changed. Raises OSError with what is wrong; the last good context stays."""
        certificate, key = self.names
        stamp = (_stamp_of(certificate), *(() if key is None else (_stamp_of_key(key),)))
        if stamp == self._stamp:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, key, password=_no_password)
        except ssl.SSLError as error:
            raise OSError(errno.EINVAL, f"no certificate with its key in PEM: {error.reason or error}") from None
        self.context, self._stamp = context, stamp


def _no_password() -> str:
    """Answer for a terminal, at which OpenSSL would ask for the password of an encrypted key."""
    return ""


def _stamp_of(path: str) -> tuple[int, int, int]:
    """Return what changes with the file. Raises OSError, with words where OpenSSL would not say which file it is."""
    descriptor = open_regular(path)
    try:
        about = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return about.st_ino, about.st_size, about.st_mtime_ns


def _stamp_of_key(path: str) -> tuple[int, int, int]:
    try:
        return _stamp_of(path)
    except OSError as error:
        raise OSError(error.errno, f"its key {path}: {error.strerror}") from None


class TlsServer:
    """Accepts connections on one listening socket, and calls `connected` with each, which then calls `open`.

    `context` returns the context in force.
    """

    def __init__(
        self,
        listening: socket.socket,
        *,
        context: Callable[[], ssl.SSLContext],
        connected: Callable[[socket.socket], None],
    ) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._context = context
        self._accepting = asyncio.create_task(self._accept(connected), name="accept TLS")

    async def close(self) -> None:
        """Accept no more connections.

        The socket is closed last: the next one could have its number while the event loop still waits for this one, and
        would then never be watched.
        """
        self._accepting.cancel()
        try:
            await asyncio.wait({self._accepting})
        finally:
            self._listening.close()

    async def _accept(self, connected: Callable[[socket.socket], None]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(self._listening)
            except OSError:  # no descriptor is left, or the peer has gone
                await asyncio.sleep(_NO_ROOM_S)
                continue
            connection.setblocking(False)
            connected(connection)

    async def open(self, connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Shake hands with a peer; None when that fails."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_STREAM_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        opened = False
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol,
                    connection,
                    ssl=self._context(),
                    ssl_handshake_timeout=HANDSHAKE_S,
                    ssl_shutdown_timeout=SHUTDOWN_S,
                )
            opened = True
        except (OSError, TimeoutError, ssl.SSLError):
            return None
        finally:
            if not opened:
                with suppress(OSError):
                    connection.close()
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
