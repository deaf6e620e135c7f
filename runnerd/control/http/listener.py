"""Accepts connections, answers each in a task of its own, and limits their number.

Invariants: an unexpected error ends only its own request, with status 500 and a traceback in the log. At most
CONNECTIONS are open at once, and at most STREAMS of them are streams, so that forgotten `runnerctl logs -f` processes
cannot lock an administrator out. `close` ends every connection and waits for its task.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from runnerd.control.contract import Peer
from runnerd.control.http.exchange import Exchange, Reply, Request, StreamReply, problem_reply
from runnerd.control.http.problem import HttpProblem
from runnerd.control.http.tls import TlsServer
from runnerd.core.errors import JournalError

CONNECTIONS = 64
STREAMS = 48
_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python has no name for it


class RequestLog(Protocol):
    """The methods of a structlog logger that the control API calls."""

    def info(self, event: str, **fields: object) -> object: ...

    def warning(self, event: str, **fields: object) -> object: ...

    def exception(self, event: str, **fields: object) -> object: ...


class Answering(Protocol):
    """A Router, or what stands before one."""

    async def answer(self, request: Request) -> Reply | StreamReply: ...


class Listener:
    """Serves one router on any number of listening sockets, and closes these sockets at `close`."""

    def __init__(self, *, router: Answering, log: RequestLog) -> None:
        self._router = router
        self._log = log
        self._servers: list[asyncio.Server | TlsServer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams = 0

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on `sockets`."""
        for listening in sockets:
            # Not start_unix_server: since Python 3.13 that removes the path on close, and systemd's path must stay.
            self._servers.append(await asyncio.start_server(self._connected, sock=listening))

    def start_tls(self, listening: socket.socket, *, context: Callable[[], ssl.SSLContext]) -> None:
        """Accept TLS connections on `listening`; `context` is asked for at each."""

        def connected(connection: socket.socket) -> None:
            self._begin(self._shake_hands(server, connection, room=len(self._tasks) < CONNECTIONS))

        server = TlsServer(listening, context=context, connected=connected)
        self._servers.append(server)

    async def _shake_hands(self, server: TlsServer, connection: socket.socket, *, room: bool) -> None:
        if not room:
            connection.close()
        elif (streams := await server.open(connection)) is not None:
            await self._serve(*streams, room=True)

    async def close(self) -> None:
        """Stop listening, cancel the task of every connection, and wait for these tasks."""
        servers, self._servers = self._servers, []
        for server in servers:
            if isinstance(server, TlsServer):
                await server.close()
            else:
                server.close()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Counted here, not in the task: of many connections accepted in one go, only those above the limit get a 503.
        room = len(self._tasks) < CONNECTIONS
        self._begin(self._serve(reader, writer, room=room))

    def _begin(self, serve: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(serve, name="control connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, room: bool) -> None:
        try:
            exchange = Exchange(reader=reader, writer=writer, peer=peer_of(writer))
            if room:
                await self._exchange(exchange)
            else:
                await exchange.send(
                    problem_reply(
                        HttpProblem(503, f"cannot serve more than {CONNECTIONS} connections at once; try again")
                    )
                )
            await exchange.finish()
        except (ConnectionError, TimeoutError):
            pass  # the client has closed or does not read, so no answer can be delivered
        except Exception:
            self._log.exception("control connection failed")
        finally:
            writer.transport.abort()  # not close(), which would wait for a client that does not read

    async def _exchange(self, exchange: Exchange) -> None:
        reply = await self._reply(exchange)
        if isinstance(reply, Reply):
            try:
                await exchange.send(reply)
            finally:
                if reply.then is not None:
                    reply.then()
        elif reply is not None and self._streams >= STREAMS:
            await reply.blocks.aclose()
            await exchange.send(
                problem_reply(
                    HttpProblem(503, f"cannot serve more than {STREAMS} streams at once; end a follower first")
                )
            )
        elif reply is not None:
            self._streams += 1
            try:
                await exchange.stream(reply)
            finally:
                self._streams -= 1

    async def _reply(self, exchange: Exchange) -> Reply | StreamReply | None:
        try:
            request = await exchange.receive()
            return None if request is None else await self._router.answer(request)
        except HttpProblem as problem:
            return problem_reply(problem)
        except ConnectionError:
            return None
        except JournalError as error:  # in the log and in `status` already
            return problem_reply(HttpProblem(503, str(error)))
        except Exception:
            self._log.exception("control request failed")
            return problem_reply(HttpProblem(500, "internal error of runnerd; see its log: journalctl -u runnerd"))


def peer_of(writer: asyncio.StreamWriter) -> Peer | None:
    """Return the process at the other end of a Unix connection; None over TCP."""
    connection: socket.socket = writer.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        return None
    size = struct.calcsize("iII")
    with suppress(OSError):
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, gid = struct.unpack("iII", raw)
        return Peer(pid=pid, uid=uid, gid=gid, groups=groups_of(connection))
    return None


def groups_of(connection: socket.socket) -> frozenset[int]:
    """Read the supplementary groups of the process that connected.

    Not from /proc: another process may have its pid by now. Empty beyond the 256 groups that one call can return.
    """
    with suppress(OSError):
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
        return frozenset(struct.unpack(f"{len(raw) // 4}I", raw))
    return frozenset()
