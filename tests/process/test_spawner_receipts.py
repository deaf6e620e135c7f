"""Version 2 of the control channel: a run may say in its end what state it has reported, and cannot misuse that."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from runnerd.core.prefect import StateType
from runnerd.core.process import Receipt
from runnerd.processes.protocol import Record
from tests.kits.spawner import Link, SpawnerUnderTest
from tests.process.test_spawner_intents import HELLO, access_of_live, connected

COMPLETED = {
    "disposition": "STATE_REPORTED",
    "state_id": "0b4a3c0e-0d1b-4b41-9f3e-2b8a3f8e4c11",
    "state_type": "COMPLETED",
    "state_name": 'Well \u00e9 "done"',
}
RECEIVED, THE_END = "02", "the end"


def receipt(said: object) -> bytes:
    """As Prefect 3.9.1 writes it."""
    contents = said if isinstance(said, bytes) else json.dumps(said, separators=(",", ":")).encode()
    return b"\x01" + len(contents).to_bytes(4, "big") + contents


async def sent(spawner: SpawnerUnderTest, data: bytes) -> tuple[str, Record]:
    """What a run hears that sends this after its greeting, and its record once it has ended."""
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", mode=("receipt", data.hex()), intents=True))
        await asyncio.to_thread(spawner.wait_for_output, "run")
        await end(link)
        record = await link.until("run", "exited")
    hello, heard, _ = spawner.output("run").splitlines()
    assert bytes.fromhex(hello) == HELLO
    return heard, record


async def end(link: Link) -> None:
    await link.client.stop(key="run", attempt=0, reason="cancel", prefect_intent="cancel", timeout_s=600)


async def test_a_receipt_is_acknowledged_and_is_in_the_record(spawner: SpawnerUnderTest) -> None:
    heard, record = await sent(spawner, receipt(COMPLETED))
    assert heard == RECEIVED
    assert record.receipt == Receipt(state=StateType.COMPLETED, name='Well é "done"')
    assert record.exit is not None
    assert (record.told, record.exit.signal) == (False, signal.SIGTERM), "there is nothing more to tell it"


async def test_an_aborted_run_says_so(spawner: SpawnerUnderTest) -> None:
    heard, record = await sent(spawner, receipt({"disposition": "ORCHESTRATION_ABORTED"}))
    assert (heard, record.receipt) == (RECEIVED, Receipt())


async def test_a_receipt_outlives_the_spawner(spawner: SpawnerUnderTest) -> None:
    await sent(spawner, receipt(COMPLETED))
    spawner.end(signal.SIGKILL)
    spawner.start()
    async with spawner.link() as link:
        (record,) = await link.client.list()
    assert record.receipt == Receipt(state=StateType.COMPLETED, name='Well é "done"')


IGNORED = {
    "longer than is saved": receipt({**COMPLETED, "state_name": "x" * 600}),
    "the longest there is": receipt(b"x" * 4096),
    "no JSON": receipt(b"{"),
    "empty": receipt(b""),
    "no object": receipt([1, 2]),
    "no such state": receipt({**COMPLETED, "state_type": "FINE"}),
    "a state that is a list": receipt({**COMPLETED, "state_type": ["COMPLETED"]}),
    "half a character": receipt(b'{"disposition":"STATE_REPORTED","state_type":"COMPLETED","state_name":"\\ud800"}'),
    "a name in two lines": receipt({**COMPLETED, "state_name": "a\nb"}),
    "deep": receipt(b"[" * 500),
    "twice, the second in vain": receipt(b"{") + receipt(COMPLETED),
}


@pytest.mark.parametrize("data", IGNORED.values(), ids=list(IGNORED))
async def test_what_is_no_receipt_is_acknowledged_and_means_nothing(spawner: SpawnerUnderTest, data: bytes) -> None:
    heard, record = await sent(spawner, data)
    assert (heard, record.receipt) == (RECEIVED, None)


CUT_OFF = {
    "longer than a receipt can be": b"\x01" + (4097).to_bytes(4, "big") + b"x" * 40,
    "4 GiB to come": b"\x01\xff\xff\xff\xff",
    "a NUL": receipt(b'"\x00"'),
    "a line's end": receipt(b"{}\n"),
    "no ASCII": receipt('"é"'.encode()),
    "another hello": HELLO,
    "no hello": b"\x00PX\x02\x01",
    "no frame": b"\x03",
    "an answer to nothing, and a flood": b"a" * 9000,
}


@pytest.mark.parametrize("data", CUT_OFF.values(), ids=list(CUT_OFF))
async def test_a_hostile_run_is_cut_off_and_ends_as_any_other(spawner: SpawnerUnderTest, data: bytes) -> None:
    heard, record = await sent(spawner, data)
    assert (heard, record.receipt) == (THE_END, None)
    assert record.exit is not None
    assert record.exit.signal == signal.SIGTERM


async def test_half_a_receipt_holds_up_nothing(spawner: SpawnerUnderTest) -> None:
    heard, record = await sent(spawner, receipt(COMPLETED)[:40])
    assert (heard, record.receipt) == ("nothing", None)


async def test_byte_by_byte(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        port, token = await access_of_live(link, spawner)
        whole = token.encode() + b"\n" + HELLO + receipt(COMPLETED)
        with connected(port, *(whole[i : i + 1] for i in range(len(whole)))) as child:
            answers = b""
            while data := await asyncio.to_thread(child.socket.recv, 10):
                answers += data
        assert answers == HELLO + b"\x02"
        await end(link)
        assert (await link.until("run", "exited")).receipt is not None


V1, V2 = b"\x01\x00", b"\x02\x01"


@pytest.mark.parametrize(("hello", "answer"), [(b"\x03\xff", V2), (b"\x02\x00", V1), (b"\x01\x01", V1)])
async def test_other_versions(spawner: SpawnerUnderTest, hello: bytes, answer: bytes) -> None:
    """Without receipts agreed on, a receipt is nonsense."""
    async with spawner.link() as link:
        port, token = await access_of_live(link, spawner)
        with connected(port, token.encode() + b"\n" + b"\x00PF" + hello) as child:
            assert child.socket.recv(10) == b"\x00PF" + answer
            child.say(receipt(COMPLETED))
            agreed = answer == V2
            assert await asyncio.to_thread(child.socket.recv, 10) == (b"\x02" if agreed else b"")
        await end(link)
        assert ((await link.until("run", "exited")).receipt is not None) is agreed


async def test_whoever_is_first(spawner: SpawnerUnderTest) -> None:
    """An intent that was acknowledged is the last word; one that crosses a receipt is not waited for."""
    async with spawner.link() as link:
        port, token = await access_of_live(link, spawner)
        with connected(port, token.encode() + b"\n" + HELLO) as child:
            assert child.socket.recv(10) == HELLO
            await end(link)
            assert child.socket.recv(10) == b"c"
            child.say(b"a" + receipt(COMPLETED))
            record = await link.until("run", "exited")
            assert (record.told, record.receipt) == (True, None)
        await link.client.forget(key="run", attempt=0)
    async with spawner.link() as link:
        port, token = await access_of_live(link, spawner, "other")
        with connected(port, token.encode() + b"\n" + HELLO) as child:
            assert child.socket.recv(10) == HELLO
            await link.client.stop(key="other", attempt=0, reason="cancel", prefect_intent="cancel", timeout_s=600)
            child.say(receipt(COMPLETED))
            record = await link.until("other", "exited")
            assert (record.told, record.receipt is not None) == (False, True)
