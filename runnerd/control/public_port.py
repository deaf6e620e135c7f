"""The TCP port at the address of http.listen: health and metrics, and with a token what Prefect's Runner serves.

Invariants: failing to listen affects no other part of the daemon: `problem` says why, and listening is tried again
every AGAIN_S until it succeeds or the configuration names another address. An address other than loopback is listened
on only with a token in the configuration. Files are read off the event loop; a token that cannot be read admits nobody,
a certificate that cannot be read leaves the last good one in use.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from runnerd.config.http_port import is_loopback
from runnerd.config.in_force import ConfigInForce
from runnerd.control.http.gate import Gate, GateSettings
from runnerd.control.http.listener import Listener, RequestLog
from runnerd.control.http.router import Access, Route, Router
from runnerd.control.http.tls import CertificateFiles
from runnerd.control.http.token import read_token
from runnerd.core.problems import Problems
from runnerd.core.settings import HttpSettings, Settings
from runnerd.files.bounded_calls import BoundedCalls, Unanswered

T = TypeVar("T")

AGAIN_S = 10.0
Address = tuple[str, int]


class PublicPort:
    """Serves the public ones of `routes` and all of `more` over TCP, to clients that the Gate admits.

    `problem` is why the port cannot be opened now, None without a problem.
    """

    def __init__(
        self,
        *,
        routes: Sequence[Route],
        problems: Problems,
        log: RequestLog,
        calls: BoundedCalls,
        more: Sequence[Route] = (),
    ) -> None:
        public = [route for route in routes if route.access is Access.PUBLIC]
        self._gate = Gate(Router([*public, *more], guard=None))
        self._listener = Listener(router=self._gate, log=log)
        self._log = log
        self._calls = calls
        self._at: tuple[Address, bool] | None = None  # and whether with TLS
        self._certificate: CertificateFiles | None = None
        self._file_problem: str | None = None
        self.problem: str | None = None
        problems.register_text(lambda: self.problem)
        problems.register_text(lambda: self._gate.settings.token_problem)
        problems.register_text(lambda: self._file_problem)

    async def run(self, *, config: ConfigInForce) -> None:
        """Listen at http.listen until cancelled, and follow each change of the configuration and of its files."""
        try:
            while True:
                config.replaced.clear()
                http = config.settings().http
                await self._read_files(config.settings())
                await self._match(http)
                self._gate.settings = replace(self._gate.settings, open_to_others=self._is_open())
                looks_again = self.problem is not None or http.token_file is not None or http.certificate is not None
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S if looks_again else None):
                        await config.replaced.wait()
        finally:
            await self._listener.close()

    # --- files ---

    async def _read_files(self, settings: Settings) -> None:
        http = settings.http
        token, why = None, None
        if http.token_file is not None and http.listen is not None:
            token, why = await self._read("http.token_file", http.token_file, lambda: read_token(http.token_file or ""))
        self._gate.settings = GateSettings(
            names=_names(settings),
            open_to_others=self._is_open() or _is_for_others(http),  # also while the last address is still open
            token=token,
            token_problem=why,
        )
        await self._read_certificate(http)

    async def _read_certificate(self, http: HttpSettings) -> None:
        if http.certificate is None or http.listen is None:
            self._certificate, self._file_problem = None, None
            return
        if self._certificate is None or self._certificate.names != (http.certificate, http.key):
            self._certificate = CertificateFiles(http.certificate, http.key)
        before = self._file_problem
        _, self._file_problem = await self._read("http.certificate", http.certificate, self._certificate.refresh)
        if self._file_problem is not None and self._certificate.context is not None:
            self._file_problem += "; the last good one stays in use"
        if self._file_problem not in (None, before):
            self._log.warning("cannot use the certificate of http", why=self._file_problem)

    async def _read(self, key: str, path: str, read: Callable[[], T]) -> tuple[T | None, str | None]:
        """Read a file; return what it has, or why it cannot be read."""
        try:
            found = await self._calls.call(os.path.dirname(path), read)
        except OSError as error:
            return None, f"cannot use {path} ({key}): {error.strerror or error}"
        return (
            (None, f"cannot use {path} ({key}): it {found.words}") if isinstance(found, Unanswered) else (found, None)
        )

    # --- the port ---

    async def _match(self, http: HttpSettings) -> None:
        """Listen where the configuration says, if that has changed."""
        context = self._certificate.context if self._certificate is not None else None
        is_ready = http.certificate is None or context is not None
        wanted = (http.listen, http.certificate is not None) if http.listen is not None and is_ready else None
        if wanted == self._at:
            self.problem = None
            return
        await self._listener.close()
        self._at = None
        problem = await self._open(*wanted) if wanted is not None else None
        if problem is not None and problem != self.problem:  # log a problem once, not at every try
            self._log.warning("cannot serve health and metrics", why=problem)
        self.problem = problem

    async def _open(self, address: Address, tls: bool) -> str | None:
        """Listen at `address`; return the problem when that fails, else None."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            listening = socket.create_server(address, family=family)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)  # create_server adds the address to strerror
            return f"cannot listen on {text_of(address)} (http.listen): {why}"
        if tls:
            self._listener.start_tls(listening, context=self._context)
        else:
            await self._listener.start([listening])
        self._at = address, tls
        self._log.info("serving health and metrics", at=text_of(address), **({"tls": True} if tls else {}))
        return None

    def _is_open(self) -> bool:
        """Whether others than this host can connect."""
        return self._at is not None and not is_loopback(self._at[0][0])

    def _context(self) -> ssl.SSLContext:
        assert self._certificate is not None and self._certificate.context is not None
        return self._certificate.context


def _is_for_others(http: HttpSettings) -> bool:
    return http.listen is not None and not is_loopback(http.listen[0])


def _names(settings: Settings) -> frozenset[str]:
    listen = settings.http.listen
    names = {settings.name, socket.gethostname(), *((listen[0],) if listen is not None else ())}
    return frozenset(name.lower() for name in names)


def text_of(address: Address) -> str:
    """Format an address as HOST:PORT, an IPv6 host in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
