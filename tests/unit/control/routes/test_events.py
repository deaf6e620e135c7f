"""events.py: changes of runs, streamed to readers of any speed."""

import json
from pathlib import Path

import pytest

from runnerd.control.client import Interrupted
from runnerd.control.http.listener import STREAMS
from runnerd.control.routes.events import BACKLOG, Feed
from tests.kits.fakes.fake_documents import a_run, ended
from tests.kits.fakes.raw_http import ask, connect, raw
from tests.kits.fakes.serving import Serving, serving
from tests.kits.streams import OTHER, RUN, client_of

GET_EVENTS = b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n"


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
