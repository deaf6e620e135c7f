"""What the control API streams: changes of runs for readers of any speed, and output that grows and shrinks."""

import asyncio
import ctypes
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.control.client import ControlClient, Interrupted
from runnerd.control.http.listener import STREAMS
from runnerd.control.routes.events import BACKLOG, Feed
from runnerd.control.routes.output import follow_output
from runnerd.core.errors import ControlError
from runnerd.output.output_file import BLOCK_BYTES, read_block
from tests.kits.fakes.fake_host import FakeHost, Serving, a_run, ended, serving
from tests.kits.fakes.raw_http import ask, connect, raw

RUN = "aaaa1111-0000-4000-8000-000000000001"
OTHER = "bbbb1111-0000-4000-8000-000000000002"
GET_EVENTS = b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it


def client_of(served: Serving) -> ControlClient:
    return ControlClient(served.socket, timeout_s=60)


# --- events --------------------------------------------------------------------------------------------------


def test_events_tell_what_is_and_then_what_changes(served: Serving) -> None:
    served.call(served.host.runs.put, RUN)
    events = client_of(served).lines("/v1/events")
    assert next(events)["phase"] == "running"
    served.call(served.host.runs.put, OTHER, phase="claiming")
    assert next(events)["id"] == OTHER
    served.call(served.host.runs.put, RUN, **ended())
    assert next(events)["phase"] == "done"
    events.close()  # type: ignore[attr-defined]
    served.until(lambda: served.host.runs.subscribers() == 0)


def test_events_of_one_run_end_with_it(served: Serving) -> None:
    served.call(served.host.runs.put, OTHER)
    events = client_of(served).lines("/v1/events", {"run": RUN})  # created a moment ago, not here yet
    served_first = iter(events)

    def then() -> None:
        served.host.runs.put(OTHER, phase="stopping")
        served.host.runs.put(RUN, phase="claiming")
        served.host.runs.put(RUN, phase="running")
        served.host.runs.put(RUN, **ended())

    with connect(served) as probe:  # it subscribes when its request is read: wait for that, then let things happen
        probe.sendall(b"GET /v1/events?run=%s HTTP/1.1\r\nHost: x\r\n\r\n" % RUN.encode())
        served.until(lambda: served.host.runs.subscribers() == 1)
        served.call(then)
        body = b""
        while block := probe.recv(65536):
            body += block
    documents = [json.loads(line) for line in body.split(b"\r\n") if line.startswith(b"{")]
    assert [d["phase"] for d in documents] == ["claiming", "running", "done"]
    assert [d["phase"] for d in served_first] == ["done"]  # asked when it is over: the last word, and the end
    assert served.host.runs.subscribers() == 0


def test_events_of_a_run_that_nobody_knows(served: Serving) -> None:
    assert ask(served, "GET", "/v1/events?run=zz")[0] == 404


def test_a_reader_that_does_not_read_holds_nobody(served: Serving) -> None:
    big = "x" * 1000
    with connect(served) as stalled:
        stalled.sendall(GET_EVENTS)
        served.until(lambda: served.host.runs.subscribers() == 1)
        for _ in range(20):
            served.call(lambda: [served.host.runs.put(RUN, name=big, pid=n) for n in range(500)])
        served.call(served.host.runs.put, RUN, name="the last")
        assert ask(served, "GET", "/v1/status")[0] == 200
        events = b""
        while b"the last" not in events:  # however late it reads: how things stand is not lost
            block = stalled.recv(65536)
            assert block
            events += block
        assert events.count(b'"id"') < 10_000
    served.until(lambda: served.host.runs.subscribers() == 0)


async def test_a_feed_that_overflows_keeps_the_last_of_each_run_or_ends() -> None:
    feed = Feed(lambda document: document["id"] != "unwanted")
    for n in range(BACKLOG):
        feed.put(a_run("busy", pid=n))
    feed.put(a_run("unwanted"))
    feed.put(a_run("other"))
    first, second = await feed.get(), await feed.get()
    assert (first["id"], first["pid"]) == ("busy", BACKLOG - 1)
    assert second["id"] == "other"
    for n in range(BACKLOG + 1):
        feed.put(a_run(f"run {n}"))
    assert await feed.get() is None


def test_followers_leave_room_for_questions(served: Serving) -> None:
    followers = [connect(served) for _ in range(STREAMS)]
    try:
        for follower in followers:
            follower.sendall(GET_EVENTS)
        served.until(lambda: served.host.runs.subscribers() == STREAMS)
        assert raw(served, GET_EVENTS)[0] == 503
        assert ask(served, "GET", "/v1/status")[0] == 200
    finally:
        for follower in followers:
            follower.close()
    served.until(lambda: served.host.runs.subscribers() == 0)


def test_a_stream_that_the_server_ends_is_known_to_be_cut(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        served.call(served.host.runs.put, RUN)
        events = client_of(served).lines("/v1/events")
        next(events)
    with pytest.raises(Interrupted):
        next(events)


# --- output --------------------------------------------------------------------------------------------------


def test_output_as_it_is_and_from_an_offset(served: Serving) -> None:
    served.call(served.host.runs.put, RUN)
    content = bytes(range(1, 256)) * 8000  # several blocks, and no text in any encoding
    (served.outputs / f"{RUN}.log").write_bytes(content)
    client = client_of(served)
    assert len(content) > 2 * BLOCK_BYTES
    assert b"".join(client.stream(f"/v1/runs/{RUN}/logs")) == content
    assert b"".join(client.stream("/v1/runs/aaaa/logs", {"offset": "1000000"})) == content[1_000_000:]
    assert ask(served, "GET", f"/v1/runs/{RUN}/logs?offset=-1")[0] == 422
    assert ask(served, "GET", f"/v1/runs/{RUN}/logs?follow=2")[0] == 422
    assert ask(served, "GET", "/v1/runs/zz/logs")[0] == 404


def test_output_that_is_not_there_yet_and_not_there_any_more(served: Serving) -> None:
    served.call(served.host.runs.put, RUN, phase="claiming")
    assert raw(served, b"GET /v1/runs/%s/logs HTTP/1.1\r\nHost: x\r\n\r\n" % RUN.encode())[0] == 200
    served.call(served.host.runs.put, RUN, **ended())
    assert ask(served, "GET", f"/v1/runs/{RUN}/logs")[0] == 410


def test_output_that_cannot_be_read_says_so(served: Serving) -> None:
    served.call(served.host.runs.put, RUN)
    (served.outputs / f"{RUN}.log").symlink_to("/etc/passwd")
    with pytest.raises(ControlError, match="cannot read"):
        next(client_of(served).stream(f"/v1/runs/{RUN}/logs"))


def test_following_through_growth_truncation_and_a_new_attempt(served: Serving) -> None:
    path = served.outputs / f"{RUN}.log"
    served.call(served.host.runs.put, RUN, phase="claiming")
    blocks = client_of(served).stream(f"/v1/runs/{RUN}/logs", {"follow": "1"})

    def wait_for(wanted: bytes) -> None:
        got = b""
        while len(got) < len(wanted):
            got += next(blocks)
        assert got == wanted

    path.write_bytes(b"one\n")
    served.call(served.host.runs.put, RUN, phase="running")
    wait_for(b"one\n")
    with path.open("ab") as more:
        more.write(b"two\n")
    wait_for(b"two\n")
    os.truncate(path, 0)  # by a flow, or by the cap
    with path.open("ab") as more:
        more.write(b"new\n")
    wait_for(b"new\n")
    served.host.runs.attempt = 2
    path = served.outputs / f"{RUN}.2.log"
    path.write_bytes(b"the second attempt\n")
    wait_for(b"the second attempt\n")
    with path.open("ab") as more:
        more.write(b"last words")
    served.call(served.host.runs.put, RUN, phase="reporting")  # nothing writes any more; the API does not matter
    wait_for(b"last words")
    assert list(blocks) == []


def test_a_follower_that_leaves_is_noticed_though_nothing_is_written(served: Serving) -> None:
    served.call(served.host.runs.put, RUN)
    follower: socket.socket = connect(served)
    follower.sendall(b"GET /v1/runs/%s/logs?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n" % RUN.encode())
    assert follower.recv(4096).startswith(b"HTTP/1.1 200")

    def followers() -> int:
        return sum(task.get_name() == "control stream" for task in asyncio.all_tasks())

    served.until(lambda: followers() == 1)
    follower.close()
    served.until(lambda: followers() == 0)


def punch(path: Path, offset: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb+") as file:
        size = ctypes.c_long
        if libc.fallocate(file.fileno(), 3, size(offset), size(length)):  # PUNCH_HOLE | KEEP_SIZE
            pytest.skip(f"no holes on this file system: {os.strerror(ctypes.get_errno())}")


def test_a_hole_at_the_front_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "output"
    path.write_bytes(b"a" * 100_000 + b"kept")
    punch(path, 0, 100_000)  # to the middle of a page: the rest of that page are NULs
    block, at = read_block(str(path), 0)
    assert block == b"kept"
    assert at == 100_004
    assert read_block(str(path), at) == (b"", at)
    assert read_block(str(path), 50_000)[0] == b"kept"


async def test_a_file_that_is_all_hole_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    path.touch()
    os.truncate(path, 10 * BLOCK_BYTES)
    host = FakeHost(outputs=tmp_path)
    host.runs.put("output")
    assert [block async for block in follow_output(host, "output", offset=0, follow=False)] == []
