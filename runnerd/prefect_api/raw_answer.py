"""Holds any answer to a request as it came, and recognises those that Prefect did not make."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from runnerd.core.place import Json
from runnerd.prefect_api.body import Body
from runnerd.prefect_api.failure_words import server_words


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """Holds any answer; `elsewhere`: the origin that sent it, when it is not that of api.url."""

    status: int
    headers: httpx.Headers
    body: Body
    location: str | None = None
    elsewhere: str | None = None

    @property
    def data(self) -> Json:
        return self.body.data

    @property
    def in_maintenance(self) -> bool:
        """Whether the server refuses all requests because of its maintenance; servers since Prefect 3.9 say so."""
        return self.status == 503 and self.headers.get("Prefect-Maintenance", "").strip().lower() == "true"

    @property
    def no_such_route(self) -> bool:
        """Whether the web framework answered, not Prefect: an unknown path says nothing about a run."""
        detail = self.data.get("detail") if isinstance(self.data, dict) else None
        words = server_words(self.data)
        return self.status == 405 or (self.status == 404 and (detail == "Not Found" or not words))
