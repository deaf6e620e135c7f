"""Worker channels of a keeper in memory, and the heartbeats that go over them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime

from wsproto.events import CloseConnection

from runnerd.core.wakes import Wakes
from runnerd.pools.heartbeats import Heartbeats
from runnerd.pools.worker_channel import OpenChannel, WorkerChannels
from runnerd.pools.worker_events import WorkerEvents
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.websocket import Refusal
from runnerd.prefect_api.worker_socket import Worker, WorkerSocket, say_hello
from runnerd.system.ambient import Ambient
from tests.kits.websocket_peer import Peer

HOST = "host-1"  # the worker's name
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
READY = {"type": "worker.ready.v1", "payload": {}}


class Channels:
    """Channels of a keeper: each is a Peer that says what is set, or the refusal that is set."""

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.over: CloseConnection | None = None  # each channel is ended with it at once
        self.peers: list[Peer] = []
        self.tries = 0

    async def open(self, worker: Worker) -> WorkerSocket | Refusal:
        self.tries += 1
        if self.refusal is not None:
            return self.refusal
        peer = Peer(clock=asyncio.get_running_loop().time)
        assert await peer.shake_hands() is None
        self.peers.append(peer)
        peer.say(READY)
        if self.over is not None:
            peer.send(self.over)
        return await say_hello(peer.socket, worker, now=NOW)

    def beats(self) -> int:
        return sum(message["type"] == "worker.heartbeat.v1" for message in self.peers[-1].texts())


async def no_channel(_worker: Worker) -> WorkerSocket | Refusal:
    """Refuse as a server does that has no worker channel."""
    return Refusal(status=404, why="HTTP 404")


def heartbeats_of(
    api: PrefectApi, open_channel: OpenChannel, events: WorkerEvents, wakes: Wakes, ambient: Ambient
) -> Heartbeats:
    return Heartbeats(
        api=api.pools,
        channels=WorkerChannels(open_channel=open_channel, ambient=ambient),
        worker_name=lambda: HOST,
        events=events,
        wakes=wakes,
        ambient=ambient,
    )


async def no_leftovers(pools: Collection[str]) -> None:
    """No earlier daemon left a worker."""
    del pools
