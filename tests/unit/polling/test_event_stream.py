"""event_stream.py by a clock that jumps: which event wakes what, and what a lost or refused stream costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from wsproto.events import CloseConnection

from runnerd.core.pace import POLL_MAX_S, STRETCH
from runnerd.core.prefect import WorkPool
from runnerd.polling.event_stream import PROOF_S, PROVE_EVERY_S, EventStream
from runnerd.pools.changes import PoolChanges
from runnerd.prefect_api.event_socket import CONNECTED, LISTENING, EventSocket
from runnerd.prefect_api.prefect_socket import RETRY_REFUSED_S
from runnerd.prefect_api.websocket import Refusal
from tests.kits.engine import BOUND as CANCELS
from tests.kits.engine import POLL, Engine, at, polling, polls, running, start, started_at
from tests.kits.nouns import Json, copied
from tests.kits.pools import pool_settings
from tests.kits.websocket_peer import Peer, end


class Streams:
    """Subscriptions of one EventStream: each is a Peer, or the refusal that is set."""

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self.over: CloseConnection | None = None  # each subscription is ended with it at once
        self.peers: list[Peer] = []
        self.tried_at: list[float] = []

    async def subscribe(self) -> EventSocket | Refusal:
        clock = asyncio.get_running_loop().time
        self.tried_at.append(clock())
        if self.refusal is not None:
            return self.refusal
        peer = Peer(clock=clock)
        assert await peer.shake_hands() is None
        self.peers.append(peer)
        if self.over is not None:
            peer.send(self.over)
        return EventSocket(peer.socket)

    def say(self, name: str, *, run: str | None = None, deployment: str | None = None, pool: str | None = None) -> None:
        ids = [f"prefect.flow-run.{run or uuid4()}"] + ([f"prefect.deployment.{deployment}"] if deployment else [])
        related: list[Json] = [{"prefect.resource.id": one} for one in ids]
        if pool is not None:
            related.append({"prefect.resource.id": f"prefect.work-pool.{uuid4()}", "prefect.resource.name": pool})
        self.peers[-1].say({"type": "event", "event": {"id": "1", "event": name, "related": related}})

    def say_of_deployment(self, name: str, deployment_id: str) -> None:
        resource = {"prefect.resource.id": f"prefect.deployment.{deployment_id}"}
        self.peers[-1].say({"type": "event", "event": {"event": name, "resource": resource}})


@asynccontextmanager
async def streaming(
    folder: Path, *, pools: Sequence[str] = (), **changes: Json
) -> AsyncIterator[tuple[Engine, Streams, EventStream]]:
    streams = Streams()
    async with polling(folder, watching=True, **changes) as (engine, _):
        engine.pools.want([pool_settings(name) for name in pools])
        stream = EventStream(
            subscribe=streams.subscribe,
            api=engine.api,
            supervisor=engine.supervisor,
            registry=engine.registry,
            pools=PoolChanges(table=engine.pools, outdated=engine.outdated.append, wakes=engine.wakes),
            host_name=lambda: "etl-1",
            pace=engine.pace,
            wakes=engine.wakes,
            ambient=engine.ambient,
        )
        listening = asyncio.create_task(stream.run())
        try:
            yield engine, streams, stream
            assert not listening.done(), "the loop has ended, and the daemon with it"
        finally:
            listening.cancel()
            await asyncio.wait([listening])


def echo(engine: Engine, streams: Streams) -> None:
    """Send the host's own event back."""
    (event,) = engine.prefect.pools.events[-1:]
    assert event["event"] in (CONNECTED, LISTENING) and event["resource"]["prefect.resource.id"] == "runnerd.host.etl-1"
    streams.peers[-1].say({"type": "event", "event": event})


async def live(engine: Engine, streams: Streams, stream: EventStream) -> None:
    await engine.until(lambda: engine.prefect.pools.events)
    echo(engine, streams)
    await engine.until(lambda: stream.condition == "live")


async def proved(engine: Engine, streams: Streams, stream: EventStream) -> None:
    """Send back whichever event of its own the host emits, until one counts."""
    while stream.condition != "live":
        echo(engine, streams)
        await asyncio.sleep(1)


async def test_a_new_run_is_polled_for_at_once(tmp_path: Path) -> None:
    async with streaming(tmp_path, poll_interval_s=1000.0) as (engine, streams, stream):
        deployment_id = engine.deploy()
        await live(engine, streams, stream)
        await asyncio.sleep(10)
        began, run_id = at(engine), engine.add_run(deployment_id)
        streams.say("prefect.flow-run.Scheduled", run=run_id, deployment=deployment_id)
        assert await started_at(engine, run_id) - began < 0.2
        assert stream.events == 1


async def test_runs_of_others_cost_no_request(tmp_path: Path) -> None:
    async with streaming(tmp_path, poll_interval_s=1000.0) as (engine, streams, stream):
        engine.deploy()
        await live(engine, streams, stream)
        await asyncio.sleep(10)
        copied(engine.prefect)
        for _ in range(100):
            streams.say("prefect.flow-run.Scheduled", deployment=str(uuid4()), pool="other")
            streams.say("prefect.flow-run.Cancelling")
            streams.say("prefect.work-pool.paused", pool="other")
            streams.say("prefect.deployment.updated", deployment=str(uuid4()))
        await asyncio.sleep(1)
        assert stream.events == 400 and copied(engine.prefect) == []


async def test_any_number_of_events_makes_no_more_polls_than_the_burst(tmp_path: Path) -> None:
    async with streaming(tmp_path, poll_interval_s=1000.0) as (engine, streams, stream):
        deployment_id = engine.deploy()
        await live(engine, streams, stream)
        await asyncio.sleep(10)
        polls(engine)
        for _ in range(1000):
            streams.say("prefect.flow-run.Scheduled", deployment=deployment_id)
            await asyncio.sleep(0.01)
        assert 10 <= polls(engine) <= 22


async def test_a_run_is_cancelled_at_once(tmp_path: Path) -> None:
    async with streaming(tmp_path, poll_interval_s=1000.0) as (engine, streams, stream):
        await live(engine, streams, stream)
        run_id = await start(engine)
        await asyncio.sleep(1)
        engine.prefect.set_state(run_id, "CANCELLING", force=True)
        began = at(engine)
        streams.say("prefect.flow-run.Cancelling", run=run_id)
        await engine.until(lambda: not running(engine, run_id))
        assert at(engine) - began < 0.5


async def test_an_event_that_comes_before_its_state_is_acted_on_all_the_same(tmp_path: Path) -> None:
    """Prefect sends the event before it commits the transaction."""
    async with streaming(tmp_path, poll_interval_s=10.0) as (engine, streams, stream):
        deployment_id = engine.deploy()
        await live(engine, streams, stream)
        await asyncio.sleep(40)
        began = at(engine)
        streams.say("prefect.flow-run.Scheduled", run=str(uuid4()), deployment=deployment_id)
        await asyncio.sleep(0.5)
        run_id = engine.add_run(deployment_id)
        assert await started_at(engine, run_id) - began < 3
        engine.prefect.set_state(run_id, "RUNNING")
        await asyncio.sleep(40)
        began = at(engine)
        streams.say("prefect.flow-run.Cancelling", run=run_id)
        await asyncio.sleep(0.5)
        engine.prefect.set_state(run_id, "CANCELLING", force=True)
        await engine.until(lambda: not running(engine, run_id))
        assert at(engine) - began < 2


async def test_an_event_costs_few_requests_however_little_there_is_to_find(tmp_path: Path) -> None:
    async with streaming(tmp_path, poll_interval_s=10.0) as (engine, streams, stream):
        await live(engine, streams, stream)
        run_id = await start(engine)
        deployment_id = engine.prefect.runs[run_id]["deployment_id"]
        await asyncio.sleep(40)
        copied(engine.prefect)
        streams.say("prefect.flow-run.Scheduled", run=str(uuid4()), deployment=deployment_id)
        streams.say("prefect.flow-run.Cancelling", run=run_id)
        await asyncio.sleep(8)
        asked: list[str] = copied(engine.prefect)
        assert (asked.count(POLL), asked.count(CANCELS)) == (2, 3)


async def test_a_pool_that_is_paused_or_resumed_is_checked_at_once(tmp_path: Path) -> None:
    async with streaming(tmp_path, pools=["etl", "other"]) as (engine, streams, stream):
        await live(engine, streams, stream)
        await asyncio.sleep(1)
        streams.say("prefect.work-pool.paused", pool="etl")
        await engine.until(lambda: engine.outdated == ["etl"])


async def test_a_deployment_that_is_changed_is_read_at_once(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (engine, streams, stream):
        deployment_id = engine.deploy()
        await live(engine, streams, stream)
        engine.wakes.refresh.clear()
        streams.say_of_deployment("prefect.deployment.updated", deployment_id)
        await engine.until(engine.wakes.refresh.is_set)


async def test_polls_are_further_apart_only_while_events_are_known_to_arrive(tmp_path: Path) -> None:
    async with streaming(tmp_path, poll_interval_s=10.0) as (engine, streams, stream):
        engine.deploy()
        await engine.until(lambda: stream.condition == "silent")
        await asyncio.sleep(15)
        polls(engine)
        await asyncio.sleep(60)
        assert polls(engine) == 6, "events may reach other replicas of the server only"
        await proved(engine, streams, stream)
        await asyncio.sleep(40)
        polls(engine)
        await asyncio.sleep(10.0 * STRETCH * 3)
        assert polls(engine) == 3
        streams.refusal = Refusal(status=502, why="HTTP 502")
        streams.peers[-1].send(end(1012))
        await asyncio.sleep(1)
        assert polls(engine) == 1, "what the last events said is not known"
        await asyncio.sleep(60)
        assert polls(engine) == 6 and stream.condition == "connecting" and "502" in stream.detail


async def test_polls_are_no_further_apart_than_a_server_takes_for_ready(tmp_path: Path) -> None:
    async with streaming(tmp_path, poll_interval_s=40.0) as (engine, streams, stream):
        engine.deploy()
        await live(engine, streams, stream)
        await asyncio.sleep(100)
        polls(engine)
        await asyncio.sleep(POLL_MAX_S * 10)
        assert polls(engine) == 10


async def test_a_stream_that_has_ceased_to_bring_events_is_noticed(tmp_path: Path) -> None:
    async with streaming(tmp_path, poll_interval_s=10.0) as (engine, streams, stream):
        engine.deploy()
        await live(engine, streams, stream)
        began = at(engine)
        for _ in range(3):
            await engine.until(lambda: len(engine.prefect.pools.events) > 1)
            assert engine.prefect.pools.events[-1]["event"] == LISTENING
            echo(engine, streams)
            engine.prefect.pools.events.clear()
            engine.prefect.pools.events.append({})
        assert at(engine) - began == pytest.approx(3 * PROVE_EVERY_S, abs=5) and stream.condition == "live"
        await engine.until(lambda: stream.condition == "silent")
        assert at(engine) - began == pytest.approx(4 * PROVE_EVERY_S + PROOF_S, abs=5)
        assert "ceased" in stream.detail and not engine.pace.woken
        polls(engine)
        await asyncio.sleep(60)
        assert polls(engine) == 6
        await proved(engine, streams, stream)
        assert len(streams.peers) == 1, "it is another event of ours that has come back, not another subscription"


async def test_what_this_host_causes_itself_wakes_nothing(tmp_path: Path) -> None:
    async with streaming(tmp_path, pools=["etl"], poll_interval_s=1000.0) as (engine, streams, stream):
        deployment_id = engine.deploy()
        await live(engine, streams, stream)
        await asyncio.sleep(10)
        copied(engine.prefect)
        engine.wakes.refresh.clear()
        for word in ("ready", "not-ready"):
            streams.say(f"prefect.work-pool.{word}", pool="etl")
            streams.say(f"prefect.work-queue.{word}", pool="etl")
            streams.say_of_deployment(f"prefect.deployment.{word}", deployment_id)
        await asyncio.sleep(1)
        assert (copied(engine.prefect), engine.outdated) == ([], []) and not engine.wakes.refresh.is_set()


async def test_a_pool_that_was_paused_and_is_ready_is_polled(tmp_path: Path) -> None:
    async with streaming(tmp_path, pools=["etl"]) as (engine, streams, stream):
        await live(engine, streams, stream)
        known = engine.pools.get("etl")
        assert known is not None
        assert engine.pools.put(
            replace(known, pool=WorkPool(id=str(uuid4()), name="etl", type="process", is_paused=True)), known=known
        )
        streams.say("prefect.work-pool.ready", pool="etl")
        await engine.until(lambda: engine.outdated == ["etl"])


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_server_without_a_stream_is_asked_now_and_then(tmp_path: Path, status: int) -> None:
    async with streaming(tmp_path) as (_, streams, stream):
        streams.refusal = Refusal(status=status, why=f"HTTP {status}")
        await asyncio.sleep(RETRY_REFUSED_S * 5.5)
        assert len(streams.tried_at) == 6 and stream.condition == "off"
        streams.refusal = None
        await asyncio.sleep(RETRY_REFUSED_S)
        assert stream.condition == "silent"


async def test_a_stream_that_fails_is_tried_again_with_a_back_off(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (_, streams, stream):
        streams.refusal = Refusal(why="connection refused")
        await asyncio.sleep(3600)
        assert 20 < len(streams.tried_at) < 100 and stream.condition == "connecting"


async def test_a_stream_that_ends_at_once_every_time_is_not_hammered(tmp_path: Path) -> None:
    async with streaming(tmp_path) as (engine, streams, _):
        engine.deploy()
        await engine.until(lambda: streams.peers)
        streams.over = end(1011)
        streams.peers[-1].send(streams.over)
        await asyncio.sleep(3600)
        assert 20 < len(streams.tried_at) < 100
