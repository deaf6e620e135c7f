"""worker_channel.py and heartbeats.py by a clock that jumps: heartbeats over a channel, and by requests without one."""

from __future__ import annotations

import asyncio

import pytest
from wsproto.events import CloseConnection

from runnerd.core.place import Json
from runnerd.core.prefect import ApiCondition
from runnerd.pools.heartbeats import GOODBYE_S, HEARTBEAT_S
from runnerd.pools.keeper import SYNC_GAP_S, SYNC_S, SYNC_WOKEN_S
from runnerd.prefect_api.prefect_socket import DENIED, RETRY_REFUSED_S
from runnerd.prefect_api.websocket import Refusal
from runnerd.prefect_api.worker_socket import Worker, WorkerSocket, say_hello
from tests.kits.channels import NOW, READY, Channels
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import copied
from tests.kits.pools import HOST, Keeping, keeping, pool_settings
from tests.kits.websocket_peer import Peer, end

BEAT = "POST /work_pools/etl/workers/heartbeat"
READ = "GET /work_pools/etl"
SNAPSHOT = {"type": "work_pool.snapshot.v1", "payload": {"work_pool": {"name": "etl"}}}


def way(one: Keeping) -> str | None:
    (document,) = one.keeper.documents([])
    found: str | None = document["heartbeats"]
    return found


async def test_heartbeats_go_over_the_channel_and_not_by_requests() -> None:
    channels = Channels()
    async with keeping(pool_settings(), open_channel=channels.open) as one:
        hello, *_ = channels.peers[0].texts()
        payload = hello["payload"]
        assert (hello["type"], payload["worker_name"], payload["worker_type"]) == ("worker.hello.v1", HOST, "process")
        assert payload["create_pool_if_not_found"] is False, "create: false is a setting of this host"
        copied(one.prefect)
        await asyncio.sleep(3600)
        assert one.asked(BEAT) == 0 and len(channels.peers) == 1
        assert channels.beats() == pytest.approx(3600 / HEARTBEAT_S, abs=2)
        beat = channels.peers[0].texts()[-1]["payload"]
        assert beat == {
            "consumer_id": payload["consumer_id"],
            "worker_name": HOST,
            "heartbeat_interval_seconds": HEARTBEAT_S,
        }
        heard = one.served().heartbeat_at
        assert heard is not None and way(one) == "channel"
        assert (one.loop.utcnow() - heard).total_seconds() <= 2 * HEARTBEAT_S  # type: ignore[attr-defined]


async def test_a_channel_that_ends_is_no_gap_in_the_heartbeats() -> None:
    channels = Channels()
    async with keeping(pool_settings(), open_channel=channels.open) as one:
        await asyncio.sleep(1000)
        channels.refusal = Refusal(why="connection refused")
        copied(one.prefect)
        channels.peers[0].send(end(1011, "heartbeat_persistence_failed"))
        await asyncio.sleep(HEARTBEAT_S + 1)
        assert one.asked(BEAT) >= 1 and way(one) == "requests"
        copied(one.prefect)
        await asyncio.sleep(3600)
        assert one.asked(BEAT) == pytest.approx(3600 / HEARTBEAT_S, abs=2)
        channels.refusal = None
        await asyncio.sleep(200)
        assert way(one) == "channel"


async def test_a_heartbeat_that_was_refused_is_forgotten_once_the_channel_is_open() -> None:
    channels, prefect = Channels(), FakePrefect(major=3)
    prefect.trouble(BEAT, status=503)
    async with keeping(pool_settings(), prefect=prefect, open_channel=channels.open) as one:
        await asyncio.sleep(2)
        assert (way(one), prefect.troubles[0].seen) == ("channel", 1)
        assert one.api.health.condition is ApiCondition.OK, "no other heartbeat is sent by a request"


@pytest.mark.parametrize("status", [401, 403, 404, 405])
async def test_a_server_without_the_channel_is_asked_now_and_then(status: int) -> None:
    channels = Channels()
    channels.refusal = Refusal(status=status, why=f"HTTP {status}")
    async with keeping(pool_settings(), open_channel=channels.open) as one:
        await asyncio.sleep(RETRY_REFUSED_S * 5.5)
        assert channels.tries == 6 and way(one) == "requests" and one.problems() == {}


@pytest.mark.parametrize("code", [DENIED, 1011, 1002])
async def test_a_channel_that_ends_at_once_every_time_is_not_hammered(code: int) -> None:
    channels = Channels()
    channels.over = end(code)
    async with keeping(pool_settings(), open_channel=channels.open) as one:
        copied(one.prefect)
        await asyncio.sleep(3600)
        assert 5 < channels.tries < 100
        assert one.asked(BEAT) >= 3600 / HEARTBEAT_S - 2, "the pool hears of this host all the same"


async def test_prefect_2_is_never_asked_for_a_channel() -> None:
    channels = Channels()
    prefect = FakePrefect(major=2)
    async with keeping(pool_settings(), prefect=prefect, open_channel=channels.open):
        await asyncio.sleep(3600)
        assert channels.tries == 0


async def test_a_pool_that_changes_is_read_at_once_and_any_number_of_changes_now_and_then() -> None:
    channels = Channels()
    async with keeping(pool_settings(), open_channel=channels.open) as one:
        await asyncio.sleep(10)
        copied(one.prefect)
        one.prefect.pools.update_pool("etl", {"concurrency_limit": 7})
        channels.peers[0].say(SNAPSHOT)
        await asyncio.sleep(0.1)
        assert one.served().caps.runs == 7
        copied(one.prefect)
        for _ in range(1000):
            channels.peers[0].say(SNAPSHOT)
            await asyncio.sleep(0.1)
        assert 100 / SYNC_GAP_S / 2 < one.asked(READ) <= 100 / SYNC_GAP_S + 1


@pytest.mark.parametrize("odd", ["", "[" * 100_000, "[]", "null", '{"type": []}', '{"type": "cleanup.message.v1"}'])
async def test_what_is_no_snapshot_changes_nothing(odd: str) -> None:
    channels = Channels()
    async with keeping(pool_settings(), open_channel=channels.open) as one:
        copied(one.prefect)
        channels.peers[0].say(*[odd] * 10)
        await asyncio.sleep(SYNC_S / 2)
        assert copied(one.prefect) == [] and way(one) == "channel"


async def test_a_host_that_drains_says_goodbye_and_no_channel_takes_it_back() -> None:
    channels = Channels()
    async with keeping(pool_settings(), open_channel=channels.open) as one:
        one.wakes.draining.set()
        one.wakes.pools.set()
        await asyncio.sleep(1)
        assert channels.peers[0].closed and way(one) is None
        (beat,) = one.prefect.pools.beats.values()
        assert beat["heartbeat_interval_seconds"] == GOODBYE_S
        await asyncio.sleep(600)
        assert (channels.beats(), channels.tries) == (0, 1)
        one.wakes.draining.clear()
        one.wakes.pools.set()
        await asyncio.sleep(1)
        assert way(one) == "channel" and channels.tries == 2


async def test_a_pool_that_is_left_or_made_again_has_no_old_channel() -> None:
    channels = Channels()
    async with keeping(pool_settings(), open_channel=channels.open) as one:
        one.prefect.pools.delete_pool("etl")
        await asyncio.sleep(SYNC_S + 1)
        assert channels.peers[0].closed and len(channels.peers) == 2, "the pool was created again, with another id"
        await one.want()
        await asyncio.sleep(1)
        assert channels.peers[1].closed


async def test_a_pool_is_read_less_often_while_events_tell_of_its_changes() -> None:
    channels = Channels()
    async with keeping(pool_settings(), open_channel=channels.open) as one:
        one.pace.woken = True
        await asyncio.sleep(SYNC_WOKEN_S)
        copied(one.prefect)
        await asyncio.sleep(3600)
        asked: list[str] = copied(one.prefect)
        assert asked.count(READ) == pytest.approx(3600 / SYNC_WOKEN_S, abs=1)
        assert len(asked) == 2 * asked.count(READ), "the pool and its queues, nothing else"


async def test_a_pool_that_cannot_be_served_is_read_as_often_as_ever() -> None:
    async with keeping(pool_settings(create=False)) as one:
        one.pace.woken = True
        await asyncio.sleep(SYNC_WOKEN_S)
        one.prefect.pools.create_pool("etl")
        await asyncio.sleep(SYNC_S + 1)
        assert one.problems() == {}, "the event of it may be lost"


async def test_a_pool_that_may_not_be_read_now_hears_of_this_host_all_the_same() -> None:
    async with keeping(pool_settings()) as one:
        one.prefect.trouble(READ, times=10**6, status=429, headers={"Retry-After": "600"})
        copied(one.prefect)
        await asyncio.sleep(3600)
        asked: list[str] = copied(one.prefect)
        assert asked.count(READ) <= 3600 / 600 + 1
        assert asked.count(BEAT) >= 3600 / HEARTBEAT_S - 2


async def test_the_answer_to_hello_is_judged() -> None:
    async def hello(*answers: Json) -> tuple[WorkerSocket | Refusal, Peer]:
        peer = Peer(clock=asyncio.get_running_loop().time)
        assert await peer.shake_hands() is None
        for answer in answers:
            peer.send(answer) if isinstance(answer, CloseConnection) else peer.say(answer)
        return await say_hello(peer.socket, Worker(pool="etl", name=HOST, interval_s=30), now=NOW), peer

    found, _ = await hello(READY)
    assert isinstance(found, WorkerSocket)
    found, peer = await hello(end(DENIED, "work_pool_not_found"))
    assert isinstance(found, Refusal) and found.status == 401 and peer.closed
    for odd in ({"type": "hello"}, "", "[]", []):
        found, peer = await hello(odd)
        assert found == Refusal(why="the answer is not that of Prefect") and peer.closed
    found, peer = await hello()
    assert isinstance(found, Refusal) and found.status is None and peer.closed
