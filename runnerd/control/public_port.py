"""The read-only TCP port with health and metrics, at the address of http.listen.

Invariant: failing to listen affects no other part of the daemon: `problem` says why, and listening is tried again every
AGAIN_S until it succeeds or the configuration names another address.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress

from runnerd.config.in_force import ConfigInForce
from runnerd.control.http.listener import Listener, RequestLog
from runnerd.control.http.router import Access, Route, Router
from runnerd.core.problems import Problems

AGAIN_S = 10.0
Address = tuple[str, int]


class PublicPort:
    """Serves the public ones of `routes` over TCP. A TCP client is not identified, so none of these changes state.

    `problem` is why the port cannot be opened now, None without a problem.
    """

    def __init__(self, *, routes: Sequence[Route], problems: Problems, log: RequestLog) -> None:
        public = [route for route in routes if route.access is Access.PUBLIC]
        self._listener = Listener(router=Router(public, guard=None), log=log)
        self._log = log
        self._at: Address | None = None
        self.problem: str | None = None
        problems.register_text(lambda: self.problem)

    async def run(self, *, config: ConfigInForce) -> None:
        """Listen at http.listen until cancelled, and follow each change of the configuration."""
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
        if problem is not None and problem != self.problem:  # log a problem once, not at every try
            self._log.warning("cannot serve health and metrics", why=problem)
        self.problem = problem

    async def _open(self, address: Address) -> str | None:
        """Listen at `address`; return the problem when that fails, else None."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            listening = socket.create_server(address, family=family)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)  # create_server adds the address to strerror
            return f"cannot listen on {text_of(address)} (http.listen): {why}"
        await self._listener.start([listening])
        self._at = address
        self._log.info("serving health and metrics", at=text_of(address))
        return None


def text_of(address: Address) -> str:
    """Format an address as HOST:PORT, an IPv6 host in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
