"""Speaks the worker channel of a work pool (Prefect 3.7 and later, `/work_pools/{p}/workers/connect`).

A worker sends its heartbeats over it, and is sent the pool whenever the pool changes; no run is offered there. A
heartbeat has no answer: a server that cannot store one closes the channel. As with events, what is sent is only a
reason to ask: the pool is then read by a request (ADR 31).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from runnerd.core.place import Json
from runnerd.core.prefect import PROCESS
from runnerd.prefect_api.prefect_socket import SocketAccess, exchange, kind_of, open_socket, read_json, refusal_of
from runnerd.prefect_api.reading import in_path
from runnerd.prefect_api.websocket import Closed, Refusal, WebSocket

VERSION = "work_pool_worker_channel.v1"
CAPABILITIES = ("worker_heartbeat.v1", "work_pool_snapshot.v1")  # both are obligatory
_READY, _SNAPSHOT = "worker.ready.v1", "work_pool.snapshot.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """Holds what a worker says of itself: the pool that it serves, its name, the seconds between its heartbeats."""

    pool: str
    name: str
    interval_s: int


class WorkerSocket:
    """One open channel. `receive` may be called until it returns Closed."""

    def __init__(self, socket: WebSocket, *, worker: Worker, consumer: str) -> None:
        self._socket = socket
        self._worker = worker
        self._consumer = consumer

    async def receive(self) -> bool | Closed:
        """Return whether the next message says that the pool has changed; why there are no more."""
        message = await self._socket.receive()
        return message if isinstance(message, Closed) else kind_of(read_json(message)) == _SNAPSHOT

    async def beat(self, now: datetime) -> None:
        """Send one heartbeat. Raises OSError (TimeoutError too) when the server does not take it."""
        payload = {"worker_name": self._worker.name, "heartbeat_interval_seconds": self._worker.interval_s}
        frame = _frame("worker.heartbeat.v1", now, {"consumer_id": self._consumer, **payload})
        await self._socket.send(json.dumps(frame))

    async def close(self) -> None:
        """Close the connection."""
        await self._socket.close()


async def open_channel(access: SocketAccess, worker: Worker, *, now: Callable[[], datetime]) -> WorkerSocket | Refusal:
    """Open the channel of a pool that exists, which is a first heartbeat. Raises ApiDenied as open_socket does."""
    place = in_path(worker.pool)
    if place is None:
        return Refusal(status=404, why="no work pool has such a name")
    socket = await open_socket(access, f"/work_pools/{place}/workers/connect")
    return socket if isinstance(socket, Refusal) else await say_hello(socket, worker, now=now())


async def say_hello(socket: WebSocket, worker: Worker, *, now: datetime) -> WorkerSocket | Refusal:
    """Begin to work for the pool over an open connection, which is closed when the server refuses."""
    consumer = str(uuid.uuid4())
    payload = {
        "consumer_id": consumer,
        "worker_name": worker.name,
        "worker_type": PROCESS,
        "heartbeat_interval_seconds": worker.interval_s,
        "supported_channel_versions": [VERSION],
        "requested_capabilities": list(CAPABILITIES),
        "create_pool_if_not_found": False,
    }
    answer = await exchange(socket, _frame("worker.hello.v1", now, payload))
    if not isinstance(answer, Closed) and kind_of(read_json(answer)) == _READY:
        return WorkerSocket(socket, worker=worker, consumer=consumer)
    await socket.close()
    return refusal_of(answer)


def _frame(kind: str, now: datetime, payload: dict[str, Json]) -> Json:
    return {"type": kind, "id": str(uuid.uuid4()), "sent_at": now.isoformat(), "payload": payload}
