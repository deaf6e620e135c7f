"""Holds the CSRF token that some self-hosted servers require with every change.

Most servers have this switched off and answer the first request for a token with 422, older ones with 404; then no
token is requested any more. A 403 about CSRF switches tokens on again: the server was reconfigured, or restarted with
another database.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime

from runnerd.core.place import Json
from runnerd.prefect_api.failure_words import server_words
from runnerd.prefect_api.values import read_time

_TOKEN_MAX = 1000  # characters; the servers' own have 64
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Csrf:
    """Holds one client id and its current token."""

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._client = str(uuid.uuid4())
        self._token: str | None = None
        self._expires: datetime | None = None
        self._off = False

    @property
    def path(self) -> str:
        """The path of the request for a token."""
        return f"/csrf-token?client={self._client}"

    @property
    def wanted(self) -> bool:
        """Whether a token has to be fetched before the next change."""
        if self._off:
            return False
        return self._token is None or (self._expires is not None and self._expires <= self._now())

    def store_token(self, status: int, data: Json) -> None:
        """Store the token in the answer to `path`; after an unexpected answer the change fails by itself."""
        if status in (404, 422):
            self._off = True
        elif status == 200 and isinstance(data, dict) and _fits_header(data.get("token")):
            self._token = data["token"]
            self._expires = read_time(data.get("expiration"))

    def headers(self) -> dict[str, str]:
        """Make the headers for a change; empty when no token is wanted."""
        if self._off or self._token is None:
            return {}
        return {"Prefect-Csrf-Token": self._token, "Prefect-Csrf-Client": self._client}

    def drop_refused_token(self, status: int, data: Json, *, sent: dict[str, str]) -> bool:
        """Return whether this answer refuses the token in `sent`; then drop that token, but not a newer one."""
        words = server_words(data).lower()
        if status != 403 or not ("csrf" in words or "client identifier" in words):
            return False
        if sent == self.headers():
            self._token, self._off = None, False
        return True


def _fits_header(token: Json) -> bool:
    """Return whether a token can be sent in a header: any other would fail every change, not only the first."""
    return isinstance(token, str) and token.isascii() and token.isprintable() and 0 < len(token) <= _TOKEN_MAX
