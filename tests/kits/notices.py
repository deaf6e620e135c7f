"""Notices, whom they are sent to, and an HTTP server that gets them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from runnerd.control.backend.documents import offered_document, run_document
from runnerd.core.notices import Notice, NoticeEvent, NoticeTarget
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.notices.build import NoticeParts, build_notices
from tests.kits.nouns import NOON, Json


def notices_of(engine: Json) -> NoticeParts:
    """The parts of an Engine; commands are run in a directory that only a fake spawner knows."""
    calls, registry = BoundedCalls(), engine.registry
    return build_notices(
        link=engine.link,
        journal=engine.journal,
        config=engine.config,
        problems=engine.problems,
        ambient=engine.ambient,
        environments=Environments(environ={}, calls=calls),
        calls=calls,
        work_dir="/var/lib/runnerd/work",
        find=lambda one: entry.deployment if (entry := registry.last_known(one)) is not None else None,
        ended=lambda record: run_document(record, now=engine.now()),
        late=lambda run: offered_document(run, registry.by_id(run.deployment_id)),
    )


DOCUMENT = {
    "id": "r-1",
    "name": "silver-fox",
    "deployment": "nightly",
    "flow": "etl",
    "api_state_name": "Crashed",
    "words": "killed by SIGKILL",
    "host": "host-1",
    "ended_at": "2025-01-01T12:00:00.000Z",
    "tags": [],
    "labels": {},
}


def a_target(**changes: Json) -> NoticeTarget:
    return NoticeTarget(**({"post": "http://127.0.0.1:9/hook"} | changes))


def a_notice(name: str = "n-1", *, at: datetime = NOON, **changes: Json) -> Notice:
    defaults: dict[str, Json] = {
        "event": NoticeEvent.ON_CRASH,
        "run_id": "r-1",
        "run_name": "silver-fox",
        "deployment": "nightly",
        "target": a_target(),
        "document": DOCUMENT,
        "created_at": at,
        "next_at": at,
    }
    return Notice(id=name, **{**defaults, **changes})


@dataclass
class SenderDouble:
    """Notes what it is to send; says `answers` one after the other, then None; `hangs` where it is to wait for ever."""

    answers: list[str | None] = field(default_factory=list)
    sent: list[Notice] = field(default_factory=list)
    hangs: bool = False
    under_way: int = 0
    most: int = 0

    async def send(self, notice: Notice) -> str | None:
        self.sent.append(notice)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(1e6 if self.hangs else 1.0)
        finally:
            self.under_way -= 1
        return self.answers.pop(0) if self.answers else None


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it was received."""

    path: str
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Json:
        return json.loads(self.body)


class Receiver:
    """An HTTP server on loopback: answers with `statuses` one after the other, then 200."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.statuses: list[int] = []
        self.location = ""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.received.append(Received(self.path, headers, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[Receiver]:
        """Serve until the block is left."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
