"""Decides where a redirect leads, and which origin gets credentials. Pure.

Invariants: credentials are for the origin of api.url, that is its scheme, host and port, and for no other; a Location
of any kind is a URL to which a request can be sent, or a reason why none can.
"""

from __future__ import annotations

import httpx

from runnerd.prefect_api.values import ODD

HOPS_MAX = 5
REDIRECTS = (301, 302, 307, 308)
_PORTS = {"http": 80, "https": 443}
_LOCATION_MAX = 8192  # characters


def origin(url: httpx.URL) -> str:
    """Return the scheme, host and port of a URL, such as `http://prefect.test:4200`."""
    return f"{url.scheme}://{url.host}:{url.port or _PORTS.get(url.scheme, 0)}"


def target(url: httpx.URL, location: str, *, base: httpx.URL) -> httpx.URL | str:
    """Return the URL to which `url` redirects, or say why no request can be sent there."""
    if len(location) > _LOCATION_MAX:
        return f"redirects to a URL of more than {_LOCATION_MAX} characters"
    try:
        found = url.join(location)
        scheme, host, port = found.scheme, found.host, found.port
        # The userinfo of a URL becomes an Authorization header: that of api.url is a credential, others replace ours.
        found = found.copy_with(userinfo=base.userinfo if origin(found) == origin(base) else b"")
    except (httpx.InvalidURL, *ODD):
        return "redirects to what is no URL"
    if scheme not in _PORTS or not host:
        return "redirects to what is no http or https URL"
    if port is not None and not 0 < port < 2**16:
        return f"redirects to port {port}, which no host has"
    return found
