"""Health and metrics over TCP, at the address that the configuration has now.

Invariant: an address that cannot be had costs nothing but itself: `problem` says so, and it is tried again until it can
be, or another one is wanted.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

from runnerd.config.in_force import ConfigInForce
from runnerd.control.http.listener import Listener, Log
from runnerd.control.http.router import Router
from runnerd.control.routes.reads import Reads
from runnerd.core.problems import Problems

AGAIN_S = 10.0
Address = tuple[str, int]


class PublicPort:
    """`run` for ever. Who connects here is not known: the port shows what `public_routes` show, and changes nothing."""

    def __init__(self, *, reads: Reads, problems: Problems, log: Log) -> None:
        self._listener = Listener(router=Router(reads.public_routes()), log=log)
        self._log = log
        self._at: Address | None = None
        self.problem: str | None = None
        problems.register_text(lambda: self.problem)

    async def run(self, *, config: ConfigInForce) -> None:
        """Listen at http.listen, and look again whenever the configuration was replaced."""
        try:
            while True:
                config.replaced.clear()
                await self._match(config.settings().http_listen)
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S if self.problem is not None else None):
                        await config.replaced.wait()
        finally:
            await self._listener.close()

    async def _match(self, wanted: Address | None) -> None:
        if wanted == self._at:
            self.problem = None
            return
        await self._listener.close()
        self._at = None
        problem = await self._open(wanted) if wanted is not None else None
        if problem is not None and problem != self.problem:  # once, not at every try
            self._log.warning("cannot show health and metrics", why=problem)
        self.problem = problem

    async def _open(self, address: Address) -> str | None:
        """Why it cannot be listened at, if so."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            listening = socket.create_server(address, family=family)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)  # create_server adds the address to strerror
            return f"cannot listen on {text_of(address)} as http.listen says: {why}"
        await self._listener.start([listening])
        self._at = address
        self._log.info("showing health and metrics", at=text_of(address))
        return None


def text_of(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
