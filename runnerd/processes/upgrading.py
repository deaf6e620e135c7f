"""Replacing the spawner of an earlier version once no run needs it."""

from __future__ import annotations

import asyncio

from runnerd import __version__
from runnerd.log.log import Log
from runnerd.processes.link import SpawnerLink

_RENEW_S = 10.0


async def keep_spawner_new(*, link: SpawnerLink, log: Log) -> None:
    """After an upgrade of ours, have the spawner of the version before make room once no run needs it."""
    in_vain = __version__  # what comes back in the same version is what is installed there
    while True:
        await link.wait_up()
        hello = link.hello
        idle = not any(record.phase != "exited" for record in link.records())
        if hello is not None and hello.version not in (__version__, in_vain) and idle and await link.retire():
            in_vain = hello.version
            log.info("the spawner of another version makes room", its=hello.version, ours=__version__)
        await asyncio.sleep(_RENEW_S)
