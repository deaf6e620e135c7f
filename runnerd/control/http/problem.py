"""RFC 9457 problem documents: the body of every answer of the control API with an error status.

A handler raises `HttpProblem`; the listener catches it and sends the document. No other code catches it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from runnerd.core.place import Json, printable

DETAIL_MAX = 1000  # characters
CONTENT_TYPE = "application/problem+json"


class HttpProblem(Exception):
    """Ends a request with an error; `detail` says why and what to do.

    `status` is the HTTP status. `kind` becomes the `type` member, urn:runnerd:problem:KIND; without one, "about:blank".
    `extra` are further members of the document, `headers` further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str | None = None,
        extra: Mapping[str, Json] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        words = printable(" ".join(detail.splitlines()))  # they quote what the client or the API sent
        self.detail = words if len(words) <= DETAIL_MAX else f"{words[:DETAIL_MAX]}..."
        super().__init__(self.detail)
        self.status = status
        self.kind = f"urn:runnerd:problem:{kind}" if kind else "about:blank"
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the problem document as JSON."""
        members = {
            "type": self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return json.dumps(members | self.extra).encode() + b"\n"
