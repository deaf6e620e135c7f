"""A FakeHost behind the real ControlServer on a real socket, in a thread of its own, for a real runnerctl.

All that touches the host goes through `Serving.call`, in that thread's loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from runnerd.control.server import ControlServer
from runnerd.core.problems import Problems
from runnerd.files.bounded_calls import BoundedCalls
from tests.kits.fakes.fake_host import FakeHost

T = TypeVar("T")


class ListLog:
    """A structlog-like logger that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def exception(self, event: str, **fields: object) -> None:
        self.lines.append(("exception", event, fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A FakeHost that answers at `socket`."""

    host: FakeHost
    log: ListLog
    socket: str
    outputs: Path
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call in the loop's thread and return what comes of it."""

        async def there() -> T:
            return function(*args, **kwargs)

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(60)

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for a condition on the host, looked at in its own thread."""

        async def there() -> None:
            while not happened():
                await asyncio.sleep(0.01)

        asyncio.run_coroutine_threadsafe(there(), self.loop).result(60)


@contextmanager
def serving(directory: Path, **settings: Any) -> Iterator[Serving]:
    """The fake behind the real server with these settings, on `directory`/control.sock, until the block is left."""
    host, log = FakeHost(outputs=directory), ListLog()
    socket = str(directory / "control.sock")
    with loop_in_thread() as loop:

        def wait(work: Coroutine[Any, Any, None]) -> None:
            asyncio.run_coroutine_threadsafe(work, loop).result(60)

        server = ControlServer(
            host=host, problems=Problems(), log=log, socket_path=socket, calls=BoundedCalls(), **settings
        )
        wait(server.start())
        try:
            yield Serving(host=host, log=log, socket=socket, outputs=directory, loop=loop)
        finally:
            wait(server.close())


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread of its own until the block is left."""
    with asyncio.Runner() as runner:
        loop, over = runner.get_loop(), asyncio.Event()
        thread = threading.Thread(target=runner.run, args=(_until(over),))
        thread.start()
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()


async def _until(over: asyncio.Event) -> None:
    await over.wait()
