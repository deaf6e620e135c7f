"""What the benchmark measures and ends: real processes, and a server that answers 503 now and then."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from tests.bench.asking import Asker
from tests.bench.contenders import MARK, kill_marked
from tests.bench.flow_files import read_mark, write_files
from tests.bench.measuring import ends_at, pss_mib, threads_ns, tree, used_s
from tests.bench.waiting import Deadline, NotReached
from tests.kits.daemon import alive, eventually

SLEEP = "import time; time.sleep(600)"
FAMILY = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"
BUSY = "while True: pass"


@contextlib.contextmanager
def process(program: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, **environ}, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, 9)
        started.wait()


# --- processes ----------------------------------------------------------------------------------------------------


def test_memory_is_that_of_the_whole_tree() -> None:
    with process(FAMILY) as family:
        root = psutil.Process(family.pid)
        eventually(lambda: len(tree([root])) == 2, "the child")
        (child,) = root.children()
        assert pss_mib([root]) > pss_mib([child]) > 1
        assert {one.pid for one in tree([root, child])} == {root.pid, child.pid}


def test_processor_time_is_that_of_the_time_between() -> None:
    with process(BUSY) as busy:
        root = psutil.Process(busy.pid)
        before = threads_ns([root])
        eventually(lambda: used_s(before, threads_ns([root])) > 0.2, "processor time to be used")
        assert used_s(before, before) == 0


def test_the_end_of_a_process_is_seen() -> None:
    with process(FAMILY) as family:
        assert ends_at(family.pid, 0.05) is None
        begun = time.time()
        family.kill()
        ended = ends_at(family.pid, 60)
        assert ended is not None and begun <= ended <= time.time()
        family.wait()
        assert ends_at(family.pid, 60) is not None  # there is no such process any more


def test_only_what_carries_the_mark_is_killed() -> None:
    mine, other = uuid.uuid4().hex, uuid.uuid4().hex
    with process(FAMILY, **{MARK: mine}) as marked, process(FAMILY, **{MARK: other}) as left_alone:
        root = psutil.Process(marked.pid)
        eventually(lambda: len(tree([root])) == 2, "the child")
        (child,) = root.children()
        kill_marked(mine)
        assert not alive(marked.pid)
        assert not alive(child.pid)
        assert left_alone.poll() is None


def test_the_mark_of_a_run_is_its_first_line_and_its_process(tmp_path: Path) -> None:
    write_files(tmp_path)
    run_id = str(uuid.uuid4())
    assert read_mark(tmp_path, run_id) is None
    (tmp_path / "marks" / run_id.replace("-", "")).write_text("12.5 77")
    assert read_mark(tmp_path, run_id) == (12.5, 77)


# --- the server -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(*statuses: int) -> Iterator[str]:
    """Answers with these statuses, one after another, and closes the connection after each; then with 200."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status = left.pop(0) if left else 200
            body = json.dumps({"path": self.path}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True  # and no header says so

        def log_message(self, *_: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/api"
        finally:
            http.shutdown()
            thread.join()


def test_a_503_is_counted_and_asked_again() -> None:
    with server(503, 503) as url, closing(Asker(url, Deadline(60))) as asker:
        assert asker.call("GET", "/flows") == {"path": "/api/flows"}
        assert asker.troubles == {"503": 2}


def test_a_connection_that_was_closed_while_idle_is_no_failure() -> None:
    with server() as url, closing(Asker(url, Deadline(60))) as asker:
        for _ in range(3):
            assert asker.call("GET", "/flows") == {"path": "/api/flows"}
        assert not asker.troubles


def test_a_refusal_ends_the_part_and_404_is_nothing() -> None:
    with server(404, 422) as url, closing(Asker(url, Deadline(60))) as asker:
        assert asker.call("GET", "/flows") is None
        with pytest.raises(NotReached, match="GET /flows: 422"):
            asker.call("GET", "/flows")
