"""A proxy in front of a Prefect server that breaks what passes through it, by rules.

It runs in a thread of the test process, on loopback. Who asks is told by the User-Agent: `runnerd/...` is the daemon,
anything else a flow's own client. Every call is recorded once it is over, and a hook is told before it is forwarded and
after the server has acted, in the proxy's thread: while the hook works, nothing passes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from tests.kits.fault_rules import Fault, Rule, acted, answer, drop, garbage, half, hang, login, lost, maintenance, slow
from tests.kits.fault_wire import HTML, Head, frame, pump, read_request, read_response

T = TypeVar("T")
__all__ = [
    "DAEMON",
    "FLOW",
    "Call",
    "Fault",
    "FaultProxy",
    "OnCall",
    "Rule",
    "acted",
    "answer",
    "drop",
    "garbage",
    "half",
    "hang",
    "login",
    "lost",
    "maintenance",
    "slow",
]
DAEMON, FLOW = "daemon", "flow"
LOGIN = "/login"


@dataclass(frozen=True)
class Call:
    """One call that is over: `n` counts its asker's calls from 1; `status` is what the asker heard, 0 for nothing."""

    n: int
    who: str
    method: str
    path: str
    body: Any
    status: int
    fault: str | None = None


class OnCall(Protocol):
    """`when` is "before" the call is forwarded, or "after" the server acted and before the asker hears of it."""

    def __call__(self, n: int, who: str, method: str, path: str, *, when: str) -> None: ...


class FaultProxy:
    """`with FaultProxy(upstream=server.url) as proxy:`, then `proxy.url` stands for the server's."""

    def __init__(self, *, upstream: str, on_call: OnCall | None = None, at_once: int = 1000) -> None:
        self.upstream = upstream
        self._turns = asyncio.Semaphore(at_once)  # calls that are forwarded and not answered yet
        self.on_call = on_call
        self._rules: list[Rule] = []
        self._calls: list[Call] = []
        self._counts: dict[str, int] = {}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    # --- for tests: from any thread -----------------------------------------------------------------------------

    def __enter__(self) -> FaultProxy:
        # Bound and never listening, it keeps the port ours while connecting is refused.
        self._guard = socket.socket()
        self._guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._guard.bind(("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy")
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._guard.close()

    @property
    def port(self) -> int:
        return int(self._guard.getsockname()[1])

    @property
    def url(self) -> str:
        """The upstream's URL with our port."""
        return f"http://127.0.0.1:{self.port}{urlsplit(self.upstream).path}"

    @property
    def calls(self) -> list[Call]:
        """All calls that are over, in the order in which they ended."""
        return list(self._calls)

    def count(self, who: str) -> int:
        """How many calls this asker has begun."""
        return self._counts.get(who, 0)

    def forget_calls(self) -> None:
        """Begin to count and to record anew."""

        async def forget() -> None:
            self._calls.clear()
            self._counts.clear()

        self._do(forget())

    def add(self, fault: Fault, **match: Any) -> Rule:
        """Break calls from now on; the first rule that matches a call decides. `match` is the rest of a Rule."""
        rule = Rule(fault, **match)

        async def add() -> None:
            self._rules.append(rule)

        self._do(add())
        return rule

    def remove(self, rule: Rule) -> None:
        """This rule strikes no more; who hangs by any rule is let go."""

        async def remove() -> None:
            if rule in self._rules:
                self._rules.remove(rule)
            self._release()

        self._do(remove())

    def clear(self) -> None:
        """No fault any more, and whoever hangs is let go, without an answer."""

        async def clear() -> None:
            self._rules.clear()
            self._release()
            await self._listen()

        self._do(clear())

    def refuse(self) -> None:
        """Close the listener and every connection: connecting is refused until `listen` or `clear`."""
        self._do(self._refuse())

    def listen(self) -> None:
        """Listen again, on the same port."""
        self._do(self._listen())

    @contextlib.contextmanager
    def broken(self, fault: Fault, **match: Any) -> Iterator[Rule]:
        """`add` and `remove`."""
        rule = self.add(fault, **match)
        try:
            yield rule
        finally:
            self.remove(rule)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    # --- in the proxy's thread ----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**24, reuse_port=True)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _end(self) -> None:
        self._rules.clear()
        self._release()
        await self._refuse()
        me = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not me]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports say goodbye in the loop's next turn

    def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while (request := await read_request(reader)) is not None:
                if not await self._handle(*request, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the asker was killed in the middle of its request: what tests do all day
        finally:
            self._open.discard(writer)
            writer.close()

    async def _handle(
        self, head: Head, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One call; whether the connection goes on."""
        path = head.target.partition("?")[0]
        if path == LOGIN:
            writer.write(frame(200, b"<html>please log in</html>", {"Content-Type": HTML}))
            return True
        who = DAEMON if head.header("user-agent").startswith("runnerd/") else FLOW
        n = self._counts[who] = self.count(who) + 1
        fault = next((rule.fault for rule in self._rules if rule.strikes(who, head.method, path)), None)
        said = (n, who, head.method, path)
        self._tell(said, "before")
        status, goes_on = 0, False
        try:
            if fault is not None and not fault.forwards:
                status, goes_on = await self._instead(fault, writer)
            elif head.header("upgrade"):
                status = await self._tunnel(head, reader, writer)
            else:
                status, goes_on = await self._forward(head, body, fault, said, writer)
            await writer.drain()
        finally:
            self._calls.append(Call(*said, _json(body), status, fault.kind if fault else None))
        return goes_on and head.header("connection").lower() != "close"

    def _tell(self, said: tuple[int, str, str, str], when: str) -> None:
        if self.on_call is not None:
            self.on_call(*said, when=when)

    async def _instead(self, fault: Fault, writer: asyncio.StreamWriter) -> tuple[int, bool]:
        """What the asker hears of a call that is not forwarded."""
        if fault.kind == "hang":
            await self._released.wait()
        if fault.kind in ("hang", "drop"):
            return 0, False
        if fault.kind == "garbage":
            writer.write(frame(200, b'{"state": [not json', {"Content-Type": "application/json"}))
            return 200, True
        if fault.kind == "login":
            writer.write(frame(302, b"", {"Location": LOGIN}))
            return 302, True
        writer.write(_error(fault))
        return fault.status, True

    async def _forward(
        self,
        head: Head,
        body: bytes,
        fault: Fault | None,
        said: tuple[int, str, str, str],
        writer: asyncio.StreamWriter,
    ) -> tuple[int, bool]:
        async with self._turns:
            status, headers, answered = await self._ask(head, body)
        self._tell(said, "after")
        kind = fault.kind if fault else ""
        if fault is not None and kind == "slow":
            await asyncio.sleep(fault.seconds)
        if fault is not None and kind == "acted":
            writer.write(_error(fault))
            return fault.status, True
        if kind == "lost":
            return 0, False
        whole = frame(status, answered, headers, no_body=head.method == "HEAD")
        if kind == "half":
            writer.write(whole[: len(whole) - max(1, len(answered) // 2)])
            return 0, False
        writer.write(whole)
        return status, True

    async def _ask(self, head: Head, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The server's answer, over a connection of its own."""
        at = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(at.hostname, at.port, limit=2**24)
        try:
            writer.write(head.raw(closing=True, length=len(body)) + body)
            return await read_response(reader, no_body=head.method == "HEAD")
        finally:
            writer.close()

    async def _tunnel(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """A websocket: bytes both ways until one side has gone."""
        at = urlsplit(self.upstream)
        up_reader, up_writer = await asyncio.open_connection(at.hostname, at.port)
        self._open.add(up_writer)
        try:
            up_writer.write(head.raw(closing=False))
            ways = [asyncio.ensure_future(pump(reader, up_writer)), asyncio.ensure_future(pump(up_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._open.discard(up_writer)
            up_writer.transport.abort()
        return 101


def _error(fault: Fault) -> bytes:
    headers = {"Content-Type": "application/json", **fault.headers}
    words = {"exception_message": f"a fault of the test: {fault.status}"}
    if fault.status == 404:
        # A missing route, as of a server that is being replaced. Prefect's own 404 would be a true answer: it is gone.
        words = {"detail": "Not Found"}
    return frame(fault.status, json.dumps(words).encode(), headers)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None
