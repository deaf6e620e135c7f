"""A Prefect server in memory, 2.20 or 3.x: as much of it as runnerd talks to, and as strict with bodies.

tests/server/test_contract*.py hold it to what the real servers do. Two ways in: `transport()` for an
httpx.AsyncClient, and `serve()` on a real loopback port for whole daemons. Troubles are put in with `trouble`.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx

from tests.kits.fakes.fake_automations import FakeAutomations
from tests.kits.fakes.fake_logs import FakeLogs
from tests.kits.fakes.fake_prefect_rules import (
    MISSING,
    Refusal,
)
from tests.kits.fakes.fake_prefect_tables import PrefectTables

Json = Any
VERSIONS = {2: "2.20.27", 3: "3.9.1"}


@dataclass
class Trouble:
    """What befalls the next requests whose `METHOD /path` contains `match`.

    `status` answers instead of the server; None drops the connection. `after` lets the request take effect first.
    With `every`, it befalls each so many-th of them only.
    """

    match: str = ""
    status: int | None = None
    times: int = 1
    after: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    body: Json = None
    every: int = 1
    seen: int = 0


class Dropped(Exception):
    """The connection breaks instead of an answer."""


class FakePrefect(PrefectTables):
    """One server. Its methods without an underscore are for tests, and the clock is theirs to move."""

    def __init__(self, *, major: int, key: str | None = None) -> None:
        super().__init__(major=major)
        self.key = key  # a bearer key that every request must then carry
        self.asked: list[str] = []  # "METHOD /path" of each request
        self.keys: list[str] = []  # the bearer key of each request, empty without one
        self.logs = FakeLogs()
        self.troubles: list[Trouble] = []
        self.down = False
        self.mute = False  # requests are accepted, and not answered meanwhile; only through `transport`
        self._lock = threading.Lock()
        self.automations = FakeAutomations()

    # --- for tests --------------------------------------------------------------------------------------------

    def transport(self) -> httpx.MockTransport:
        """For httpx.AsyncClient(transport=...), with any base URL that ends in /api."""

        async def answer(request: httpx.Request) -> httpx.Response:
            while self.mute:
                await asyncio.sleep(0.05)
            try:
                status, headers, data = self._receive(
                    request.method, str(request.url), dict(request.headers), request.content
                )
            except Dropped:
                raise httpx.ReadError("dropped", request=request) from None
            content = b"" if data is None else json.dumps(data).encode()
            return httpx.Response(status, headers={"Content-Type": "application/json", **headers}, content=content)

        return httpx.MockTransport(answer)

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve on a loopback port; yields the API's URL."""
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def trouble(self, match: str = "", **more: Any) -> None:
        """Add a Trouble."""
        self.troubles.append(Trouble(match=match, **more))

    def set_state(
        self, run_id: str, kind: str, name: str | None = None, *, message: str | None = None, force: bool = False
    ) -> Json:
        """Propose a state as the UI or a flow process does."""
        state = {"type": kind, "name": name, "message": message}
        return self._set_state(run_id, {"state": state, "force": force})[1]

    @property
    def history(self) -> dict[str, list[str]]:
        """Of each run, the names of the states it went through."""
        return {run_id: [state["name"] for state in states] for run_id, states in self.states.items()}

    def state_of(self, run_id: str) -> str:
        """The type of the run's state."""
        return str(self.runs[run_id]["state"]["type"])

    # --- requests ---------------------------------------------------------------------------------------------

    def _receive(
        self, method: str, url: str, headers: dict[str, str], content: bytes
    ) -> tuple[int, dict[str, str], Json]:
        path = unquote(urlsplit(url).path).partition("/api")[2]
        with self._lock:
            self.asked.append(f"{method} {path}")
            self.keys.append((_header(headers, "authorization") or "").removeprefix("Bearer "))
            if self.down:
                raise Dropped
            trouble = self._next_trouble(f"{method} {path}")
            if trouble is not None and not trouble.after:
                return _troubled(trouble)
            if self.key is not None and _header(headers, "authorization") != f"Bearer {self.key}":
                return 401, {}, {"exception_message": "Unauthorized"}
            try:
                asked = json.loads(content) if content else dict(parse_qsl(urlsplit(url).query))
                status, data = self._route(method, path, asked or None)
            except Refusal as refusal:
                status, data = refusal.status, refusal.body
            data = json.loads(json.dumps(data))  # what is told is a copy
        if trouble is not None:
            return _troubled(trouble)
        return status, {}, data

    def _next_trouble(self, asked: str) -> Trouble | None:
        for trouble in self.troubles:
            if trouble.match in asked and trouble.times > 0:
                trouble.seen += 1
                if trouble.seen % trouble.every == 0:
                    trouble.times -= 1
                    return trouble
        return None

    def _route(self, method: str, path: str, body: Json) -> tuple[int, Json]:
        match (method, *path.strip("/").split("/")):
            case ("GET", "health"):
                return 200, True
            case ("GET", "admin", "version"):
                return 200, VERSIONS[self.major]
            case ("GET", "csrf-token"):
                return 422, {"detail": "CSRF protection is disabled."}
            case ("POST", "flows"):
                return self._ensure_flow(body)
            case ("GET", "flows", flow_id):
                return 200, self._get(self.flows, flow_id, "Flow not found")
            case ("POST", "flow_runs", "filter"):
                return 200, self._filter_runs(body)
            case ("POST", "task_runs"):
                self.task_runs[made := str(uuid.uuid4())] = body["flow_run_id"]
                return 201, {"id": made}
            case ("POST", "task_runs", "filter"):
                wanted = body["task_runs"]["id"]["any_"]
                return 200, [{"id": one, "flow_run_id": self.task_runs[one]} for one in wanted if one in self.task_runs]
            case ("POST", "flow_runs", "count"):
                return 200, len(self._filter_runs({**body, "limit": len(self.runs)}))
            case ("GET", "flow_runs", run_id):
                return 200, self._get(self.runs, run_id, "Flow run not found")
            case ("GET", "flow_run_states"):
                return 200, self.states.get(body["flow_run_id"], [])
            case ("POST", "flow_runs", run_id, "set_state"):
                return self._set_state(run_id, body)
            case ("POST", "logs", *rest):
                return self.logs.answer(rest, body)
            case (_, "deployments", *rest):
                return self._route_deployment(method, rest, body)
            case (_, "automations", *rest) if (answer := self.automations.route(method, rest, body)) is not None:
                return answer
            case ("POST", "v2", "concurrency_limits", "leases", lease_id, "renew"):
                self.renewed.append(lease_id)
                return (204 if lease_id in self.leases else 410), None
        answer = self.pools.route(method, path.strip("/").split("/"), body)
        if answer is None:
            raise MISSING
        return answer

    def _route_deployment(self, method: str, rest: list[str], body: Json) -> tuple[int, Json]:
        match (method, *rest):
            case ("POST",):
                return self._upsert(body)
            case ("POST", "get_scheduled_flow_runs"):
                return 200, self._scheduled(body)
            case ("POST", "filter"):
                return 200, self._filter_deployments(body)
            case ("GET", "name", flow_name, name):
                return 200, self._named(flow_name, name)
            case ("GET", deployment_id):
                return 200, self._deployment(deployment_id)
            case ("PATCH", deployment_id):
                return self._change_deployment(deployment_id, body)
            case ("DELETE", deployment_id):
                return self._delete(deployment_id)
            case ("POST", deployment_id, "pause_deployment" | "resume_deployment" as action):
                return self._pause(deployment_id, action == "pause_deployment")
            case ("POST", deployment_id, "create_flow_run"):
                return self._create_run(deployment_id, body)
            case ("POST", deployment_id, "schedules"):
                return self._add_schedules(deployment_id, body)
            case ("PATCH" | "DELETE", deployment_id, "schedules", schedule_id):
                return self._change_schedule(deployment_id, schedule_id, body)
        raise MISSING


def _troubled(trouble: Trouble) -> tuple[int, dict[str, str], Json]:
    if trouble.status is None:
        raise Dropped
    return trouble.status, trouble.headers, trouble.body


def _header(headers: dict[str, str], name: str) -> str | None:
    return next((value for key, value in headers.items() if key.lower() == name), None)


def _handler_of(fake: FakePrefect) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                status, headers, data = fake._receive(self.command, self.path, dict(self.headers), content)
            except Dropped:
                self.close_connection = True
                return
            body = b"" if data is None or status == 204 else json.dumps(data).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the test's own output is what one reads."""

    return Handler
