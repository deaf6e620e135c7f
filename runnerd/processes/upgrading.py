"""Replace a spawner of another version once it has no run, after an upgrade of runnerd."""

from __future__ import annotations

import asyncio

from runnerd import __version__
from runnerd.log.log import Log
from runnerd.processes.link import SpawnerLink

_CHECK_PERIOD_S = 10.0


async def run_spawner_upgrade(*, link: SpawnerLink, log: Log) -> None:
    """End the spawner when it is of another version and has no run; systemd or the link then starts the new one."""
    tried = __version__  # the version retired last: if the next spawner has it again, that is what is installed
    while True:
        await link.wait_until_connected()
        hello = link.hello
        idle = not any(record.phase != "exited" for record in link.records())
        if hello is not None and hello.version not in (__version__, tried) and idle and await link.retire():
            tried = hello.version
            log.info("replacing the idle spawner with another version", old=hello.version, new=__version__)
        await asyncio.sleep(_CHECK_PERIOD_S)
