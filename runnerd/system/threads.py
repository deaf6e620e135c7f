"""Runs calls that may block, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Call `call` in a thread of its own; return what it returns, raise what it raises.

    Not asyncio.to_thread: a call that hangs (a dead NFS mount, a name service) would hold one of the few threads that
    all callers share, and the daemon's end would wait for that thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def resolve(result: T | None, why: BaseException | None) -> None:
        if future.done():
            return
        if why is not None:
            future.set_exception(why)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, why = None, None
        try:
            result = call()
        except BaseException as raised:
            why = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no caller waits
            loop.call_soon_threadsafe(resolve, result, why)

    threading.Thread(target=work, name="call", daemon=True).start()
    return await future
