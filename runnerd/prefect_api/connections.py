"""Opens httpx clients, one per scheme, and replaces them when their connections have broken.

A retired client is closed by the last request that uses it, so that no answer is cut off.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from http.cookiejar import CookieJar
from typing import Any

import httpx

from runnerd import __version__

_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")
_LOCATION = "runnerd.location"  # the key of an answer's extensions
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")

OpenClient = Callable[[httpx.URL], httpx.AsyncClient]


def open_client(url: httpx.URL, *, timeout_s: float) -> httpx.AsyncClient:
    """Open a client for one scheme and host. HTTP/1.1 only: over HTTP/2, pollers of this API have hung before."""
    # For http no certificates are loaded (1 MiB and 30 ms). For https the system's store is used, not certifi's:
    # that is where an administrator puts the organisation's own authority.
    verify: ssl.SSLContext | bool = ssl.create_default_context() if url.scheme == "https" else False
    return httpx.AsyncClient(
        http2=False,
        verify=verify,
        # Without proxies the environment holds nothing useful, and netrc would add other credentials.
        trust_env=is_proxied(url),
        timeout=httpx.Timeout(timeout_s),
        limits=httpx.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=25),
        cookies=NoCookies(),
        headers={"User-Agent": f"runnerd/{__version__}", "Accept": "application/json"},
    )


def is_proxied(url: httpx.URL) -> bool:
    """Return whether the environment names a proxy, through which requests to this host may go."""
    named = any(os.environ.get(name) or os.environ.get(name.upper()) for name in _PROXY_VARIABLES)
    return named and url.host not in _LOOPBACK


def is_cloud(url: httpx.URL) -> bool:
    """Return whether the API at this URL is Prefect Cloud."""
    return url.host in ("api.prefect.cloud", "api.stg.prefect.dev")


class NoCookies(CookieJar):
    """Stores no cookie: one would go to every port of its host, and any number of them could be set."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Ignore the cookies of an answer."""


async def _set_location_aside(response: httpx.Response) -> None:
    """Hide the Location from httpx, which would raise at a URL that it cannot parse, though it follows none."""
    location = response.headers.get("Location")
    if location is not None:
        del response.headers["Location"]
        response.extensions[_LOCATION] = location


def location_of(response: httpx.Response) -> str | None:
    """Return the Location of an answer of a lent client; None when it has none."""
    found: str | None = response.extensions.get(_LOCATION)
    return found


class _Lease:
    """Holds one httpx client and the number of requests that use it."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.client.event_hooks = {"response": [_set_location_aside]}
        self.users = 0
        self.retired = False

    async def close_if_unused(self) -> None:
        if self.retired and self.users == 0:
            # The client is retired because its connections are broken: closing them is expected to fail.
            with suppress(httpx.HTTPError, OSError):
                await self.client.aclose()


class ClientPool:
    """Gives each request the client for its URL; after `renew`, the next request opens new connections."""

    def __init__(self, *, open_client: OpenClient) -> None:
        self._open = open_client
        self._leases: dict[str, _Lease] = {}

    @asynccontextmanager
    async def client(self, url: httpx.URL) -> AsyncIterator[httpx.AsyncClient]:
        """Lend the client for this URL's scheme, which stays open while it is lent."""
        lease = self._leases.get(url.scheme)
        if lease is None:
            lease = self._leases[url.scheme] = _Lease(self._open(url))
        lease.users += 1
        try:
            yield lease.client
        finally:
            lease.users -= 1
            await lease.close_if_unused()

    async def renew(self) -> None:
        """Retire every client; close those that no request uses."""
        leases = list(self._leases.values())
        self._leases.clear()
        for lease in leases:
            lease.retired = True
            await lease.close_if_unused()
