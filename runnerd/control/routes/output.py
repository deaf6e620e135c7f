"""Streams the output file of a run, while the run may still write to it.

Invariants: the file is read off the event loop, one block at a time; that of a new attempt from its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from runnerd.control.contract import Host
from runnerd.control.routes.events import DONE

READ_INTERVAL_S = 0.2  # while a client follows: the file belongs to another process, and no event says that it grew


async def follow_output(
    host: Host, run_id: str, *, attempt: int | None, offset: int, follow: bool
) -> AsyncGenerator[bytes, None]:
    """Yield the output from byte `offset` on; with `follow`, until the process has ended and all output was yielded.

    Of one `attempt`, or of the last one and of each that follows it.
    """
    path = host.runs.output(run_id, attempt=attempt)
    began = path is not None  # `offset` is one of the first file that is read
    while True:
        # Before reading: the read below then gets all that an ended process wrote.
        over = process_over(host, run_id, attempt=attempt)
        if (now := host.runs.output(run_id, attempt=attempt)) != path:
            offset, path = 0 if began else offset, now
            began = began or now is not None
        while path is not None:
            before = offset
            block = await host.runs.read_output(path, offset)
            if isinstance(block, str):  # the flow's user has replaced the file, say
                yield f"\nrunnerd: {block}; no more output is shown\n".encode()
                return
            offset = block.offset
            if block.data:
                yield block.data
            elif offset == before:
                break
        if over or not follow:
            return
        await asyncio.sleep(READ_INTERVAL_S)


def process_over(host: Host, run_id: str, *, attempt: int | None) -> bool:
    """Return whether no process of the run, or of this attempt, can write any more.

    In `reporting` only the report to Prefect is left, or the start of the next attempt.
    """
    document = host.runs.document(run_id)
    if document is None or document["phase"] in ("reporting", DONE):
        return True
    return attempt is not None and attempt < (document.get("attempt") or 1)
