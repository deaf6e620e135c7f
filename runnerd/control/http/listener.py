"""Connections: accept them, have each answered in a task of its own, and keep their number bounded.

Invariants: whatever goes wrong in one request ends that request only (a 500 and a traceback in the log); at most
CONNECTIONS at once, and at most STREAMS of these may be streams, so that forgotten followers cannot lock an
administrator out; closing ends every connection and waits for its task.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from runnerd.control.contract import Peer
from runnerd.control.http.exchange import Exchange, Reply, StreamReply, problem_reply
from runnerd.control.http.problem import Problem
from runnerd.control.http.router import Router
from runnerd.core.errors import JournalError

CONNECTIONS = 64
STREAMS = 48


class Log(Protocol):
    """What we need of a structlog logger."""

    def info(self, event: str, **fields: object) -> object: ...

    def warning(self, event: str, **fields: object) -> object: ...

    def exception(self, event: str, **fields: object) -> object: ...


class Listener:
    """Serves one table of routes on any number of listening sockets, which it owns from `start` on."""

    def __init__(self, *, router: Router, log: Log) -> None:
        self._router = router
        self._log = log
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams = 0

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        for listening in sockets:
            # Not start_unix_server: from 3.13 on it removes the path on close, and systemd's is not ours to remove.
            self._servers.append(await asyncio.start_server(self._connected, sock=listening))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Counted as they come: many accepted at once must not all find the house full.
        room = len(self._tasks) < CONNECTIONS
        task = asyncio.create_task(self._serve(reader, writer, room=room), name="control connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, room: bool) -> None:
        try:
            exchange = Exchange(reader=reader, writer=writer, peer=peer_of(writer))
            if room:
                await self._exchange(exchange)
            else:
                await exchange.send(problem_reply(Problem(503, f"there are {CONNECTIONS} connections already")))
            await exchange.finish()
        except (ConnectionError, TimeoutError):
            pass  # the peer left, or does not read: it is its own answer
        except Exception:
            self._log.exception("control connection failed")
        finally:
            writer.transport.abort()  # at once and idempotent: a stalled reader must not hold the loop's end

    async def _exchange(self, exchange: Exchange) -> None:
        reply = await self._reply(exchange)
        if isinstance(reply, Reply):
            await exchange.send(reply)
        elif reply is not None and self._streams >= STREAMS:
            await reply.blocks.aclose()
            await exchange.send(problem_reply(Problem(503, f"there are {STREAMS} followers already")))
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
        except Problem as problem:
            return problem_reply(problem)
        except ConnectionError:
            return None
        except JournalError as error:  # its trouble is in the log and in `status` already
            return problem_reply(Problem(503, str(error)))
        except Exception:
            self._log.exception("control request failed")
            return problem_reply(Problem(500, "runnerd erred; its log has the traceback"))


def peer_of(writer: asyncio.StreamWriter) -> Peer | None:
    """Who is at the other end of a Unix connection; None over TCP."""
    connection: socket.socket = writer.get_extra_info("socket")
    if connection.family != socket.AF_UNIX:
        return None
    size = struct.calcsize("iII")
    with suppress(OSError):
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, gid = struct.unpack("iII", raw)
        return Peer(pid=pid, uid=uid, gid=gid)
    return None
