"""A spawner's link that runs for as long as a test needs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runnerd.processes.link import SpawnerLink


@asynccontextmanager
async def running_link(link: SpawnerLink) -> AsyncIterator[SpawnerLink]:
    """The link once it is up; closed in the end."""
    keeping = asyncio.create_task(link.run())
    try:
        await link.wait_until_connected()
        yield link
        assert not keeping.done()
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await link.close()
