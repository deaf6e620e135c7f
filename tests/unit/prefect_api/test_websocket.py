"""websocket.py against a peer in memory: messages, bounds, and a peer that is silent, odd or gone."""

from __future__ import annotations

import asyncio

import pytest
from wsproto.events import BytesMessage, Ping, Pong, Request, TextMessage

from runnerd.prefect_api.websocket import (
    FLOOD_BYTES,
    FLOOD_FRAMES,
    FLOOD_S,
    MESSAGE_MAX,
    QUIET_S,
    Closed,
    Refusal,
    open_websocket,
)
from tests.kits.websocket_peer import URL, Peer, end, refusal


async def connected(*, mute: bool = False) -> Peer:
    peer = Peer(clock=asyncio.get_running_loop().time, mute=mute)
    assert await peer.shake_hands() is None
    return peer


async def test_the_handshake_names_host_path_subprotocol_and_headers() -> None:
    peer = Peer(clock=asyncio.get_running_loop().time)
    assert await peer.shake_hands(Authorization="Bearer k") is None
    request = peer.received[0]
    assert isinstance(request, Request)
    assert (request.host, request.target, request.subprotocols) == ("127.0.0.1:4200", "/api/events/out", ["prefect"])
    assert (b"authorization", b"Bearer k") in request.extra_headers
    assert request.extensions == [], "a compressed message could grow without bound"


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_a_refused_handshake_tells_its_status(status: int) -> None:
    peer = Peer(clock=asyncio.get_running_loop().time)
    assert await peer.shake_hands(refusal(status)) == Refusal(status=status, why=f"HTTP {status}")


async def test_messages_go_both_ways_whole() -> None:
    peer = await connected()
    peer.send(TextMessage(data="one ", message_finished=False))
    peer.send(TextMessage(data="message", message_finished=True))
    peer.say("two")
    assert [await peer.socket.receive(), await peer.socket.receive()] == ["one message", "two"]
    await peer.socket.send('{"a": 1}')
    assert peer.texts() == [{"a": 1}]


async def test_a_ping_is_answered() -> None:
    peer = await connected()
    peer.send(Ping(payload=b"x"))
    peer.say("after")
    assert await peer.socket.receive() == "after"
    assert [bytes(one.payload) for one in peer.received if isinstance(one, Pong)] == [b"x"]


async def test_a_silent_peer_is_asked_and_given_up() -> None:
    peer = await connected(mute=True)
    began = asyncio.get_running_loop().time()
    assert await peer.socket.receive() == Closed(why="no answer within 20 s")
    assert peer.pings() == 1
    assert asyncio.get_running_loop().time() - began == pytest.approx(2 * QUIET_S)


async def test_a_peer_that_answers_pings_is_there_for_ever() -> None:
    peer = await connected()
    receiving = asyncio.ensure_future(peer.socket.receive())
    for _ in range(100):
        before = peer.pings()
        await asyncio.sleep(QUIET_S + 1.0)
        assert peer.pings() > before
    peer.say("at last")
    assert await receiving == "at last"


async def test_the_end_of_the_stream_is_told_as_what_it_is() -> None:
    peer = await connected()
    peer.send(end(1008, "Invalid token"))
    assert await peer.socket.receive() == Closed(code=1008, why="closed by the server (1008) Invalid token")
    peer = await connected()
    peer.reader.feed_eof()
    over = await peer.socket.receive()
    assert isinstance(over, Closed) and over.code in (None, 1006)
    peer = await connected()
    peer.reader.set_exception(ConnectionResetError(104, "Connection reset by peer"))
    assert await peer.socket.receive() == Closed(why="connection reset by peer")


@pytest.mark.parametrize(
    "odd", [b"\x00" * 200, b"\xff" * 200, b"HTTP/1.1 200 OK\r\n\r\n", b"\x83\x00", b"\x81\xff" + b"a" * 9]
)
async def test_what_is_no_websocket_ends_the_connection(odd: bytes) -> None:
    peer = await connected()
    peer.reader.feed_data(odd)
    peer.reader.feed_eof()
    assert isinstance(await peer.socket.receive(), Closed)


@pytest.mark.parametrize(
    "odd", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"\x00" * 99, b""]
)
async def test_an_answer_that_is_no_handshake_is_a_refusal(odd: bytes) -> None:
    peer = Peer(clock=asyncio.get_running_loop().time)
    peer.reader.feed_data(odd)
    peer.reader.feed_eof()
    assert isinstance(await peer.socket.shake_hands(URL, subprotocol="prefect", headers={}), Refusal)


async def test_a_message_is_bounded_while_it_comes() -> None:
    peer = await connected()
    part = "x" * (MESSAGE_MAX // 4)
    for _ in range(5):
        peer.send(TextMessage(data=part, message_finished=False))
    assert await peer.socket.receive() == Closed(why="it sends a message of more than 1024 KiB")


async def test_binary_messages_are_no_events() -> None:
    peer = await connected()
    peer.send(BytesMessage(data=b"x"))
    assert await peer.socket.receive() == Closed(why="it sends binary messages")


async def test_a_flood_ends_the_connection_and_as_much_over_an_hour_does_not() -> None:
    peer = await connected()
    text, count = "x" * 500_000, FLOOD_BYTES // 500_000 + 1
    for _ in range(count):
        await asyncio.sleep(60.0)
        peer.say(text)
        assert await peer.socket.receive() == text
    for _ in range(count):
        peer.say(text)
    ends = [await peer.socket.receive() for _ in range(count)]
    assert Closed(why="it sends more than 32 MiB within 10 s") in ends


@pytest.mark.parametrize("frame", [b"\x89\x00", b"\x8a\x00", b"\x81\x00"])  # ping, pong, an empty message
async def test_a_flood_of_tiny_frames_ends_the_connection_and_other_loops_have_their_turns(frame: bytes) -> None:
    peer = await connected()
    peer.reader.feed_data(frame * (FLOOD_FRAMES + 10))
    turns = 0

    async def other_loop() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(other_loop())
    while not isinstance(over := await peer.socket.receive(), Closed):
        pass
    other.cancel()
    assert over == Closed(why=f"it sends more than {FLOOD_FRAMES} messages within {FLOOD_S:g} s")
    assert turns >= 2, "all of it was parsed at one go"


async def test_as_many_frames_over_an_hour_are_no_flood() -> None:
    peer = await connected()
    for _ in range(30):
        peer.reader.feed_data(b"\x81\x00" * (FLOOD_FRAMES // 20))
        for _ in range(FLOOD_FRAMES // 20):
            assert await peer.socket.receive() == ""
        await asyncio.sleep(120)


@pytest.mark.real_io
async def test_nobody_listens() -> None:
    refused = await open_websocket(
        URL.copy_with(port=1), subprotocol="prefect", headers={}, clock=asyncio.get_running_loop().time
    )
    assert isinstance(refused, Refusal) and refused.status is None and refused.why == "connection refused"
