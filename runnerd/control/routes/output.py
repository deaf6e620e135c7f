"""A run's output, from its file straight to a reader, while the run may still be writing to it.

Invariants: the file is only read off the loop, a block at a time; the file of a new attempt is read from its beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from runnerd.control.contract import Host
from runnerd.control.routes.events import DONE
from runnerd.output.output_file import read_block

LOOK_S = 0.2  # while somebody follows: nothing tells us that a file of somebody else's process grew


async def follow_output(host: Host, run_id: str, *, offset: int, follow: bool) -> AsyncGenerator[bytes, None]:
    """The output from `offset` on; with `follow` until the run's process is over and all of it was sent."""
    path = host.runs.output(run_id)
    while True:
        over = process_over(host, run_id)  # before reading: what it wrote until now is then read
        if (now := host.runs.output(run_id)) != path:
            offset, path = 0 if path else offset, now
        while path is not None:
            before = offset
            block, offset = await asyncio.to_thread(read_block, path, offset)
            if block:
                yield block
            elif offset == before:
                break
        if over or not follow:
            return
        await asyncio.sleep(LOOK_S)


def process_over(host: Host, run_id: str) -> bool:
    """Whether nothing of the run can write any more: while `reporting`, only the API is still to be told."""
    document = host.runs.document(run_id)
    return document is None or document["phase"] in ("reporting", DONE)
