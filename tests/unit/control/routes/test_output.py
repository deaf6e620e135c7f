"""output.py: output that grows and shrinks, streamed."""

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerd.control.routes.output import follow_output
from runnerd.core.errors import ControlError
from runnerd.output.output_file import BLOCK_BYTES, read_block
from tests.kits.fakes.fake_documents import ended
from tests.kits.fakes.fake_host import FakeHost
from tests.kits.fakes.raw_http import ask, connect, raw
from tests.kits.fakes.serving import Serving
from tests.kits.streams import RUN, client_of


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


def test_output_that_was_removed_says_for_which_bound(served: Serving) -> None:
    served.call(served.host.runs.put, RUN, **ended(output_removed="output.max_total"))
    with pytest.raises(ControlError, match=r"its output was removed: output\.max_total"):
        next(client_of(served).stream(f"/v1/runs/{RUN}/logs"))


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


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_output_that_is_replaced_while_it_is_followed(served: Serving, put: Callable[[Path], object]) -> None:
    served.call(served.host.runs.put, RUN)
    path = served.outputs / f"{RUN}.log"
    path.write_bytes(b"one\n")
    blocks = client_of(served).stream(f"/v1/runs/{RUN}/logs", {"follow": "1"})
    assert next(blocks) == b"one\n"
    path.unlink()
    put(path)
    assert b"".join(blocks).startswith(f"\nrunnerd: cannot read {path}: ".encode())


def test_one_attempt_of_several(served: Serving) -> None:
    served.host.runs.attempt = 2
    served.call(served.host.runs.put, RUN, attempt=2)
    (served.outputs / f"{RUN}.log").write_bytes(b"one\n")
    (served.outputs / f"{RUN}.2.log").write_bytes(b"two\n")
    client = client_of(served)
    assert b"".join(client.stream(f"/v1/runs/{RUN}/logs", {"attempt": "1"})) == b"one\n"
    # Nobody writes to it any more, so that there is nothing to follow though the run is live.
    assert b"".join(client.stream(f"/v1/runs/{RUN}/logs", {"attempt": "1", "follow": "1"})) == b"one\n"
    assert b"".join(client.stream(f"/v1/runs/{RUN}/logs")) == b"two\n"
    assert client.get(f"/v1/runs/{RUN}/attempts") == [
        {"attempt": 1, "bytes": 4, "cut": False, "shown": False},
        {"attempt": 2, "bytes": 4, "cut": False, "shown": True},
    ]
    for wrong in ("0", "-1", "x", "", "1.0", "9999999999"):
        assert ask(served, "GET", f"/v1/runs/{RUN}/logs?attempt={wrong}")[0] == 422
    with pytest.raises(ControlError, match=r"no output of attempt 3 of run .* there is output of attempt 1-2") as found:
        next(client.stream(f"/v1/runs/{RUN}/logs", {"attempt": "3"}))
    assert found.value.status == 404


def test_an_attempt_that_is_under_way_may_have_no_output_yet(served: Serving) -> None:
    served.host.runs.attempt = 2
    served.call(served.host.runs.put, RUN, attempt=2)
    blocks = client_of(served).stream(f"/v1/runs/{RUN}/logs", {"attempt": "2", "follow": "1"})
    (served.outputs / f"{RUN}.2.log").write_bytes(b"two\n")
    assert next(blocks) == b"two\n"
    served.call(served.host.runs.put, RUN, **ended())
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
    assert [block async for block in follow_output(host, "output", attempt=None, offset=0, follow=False)] == []
