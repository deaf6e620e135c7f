"""RFC 9457 problem documents: every refusal of the control API is one of these.

`Problem` is raised by what answers a request and caught by the listener only; it never leaves the package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from runnerd.core.place import Json

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """The request is answered with this `status`; `detail` says why and what would be right.

    `kind` names the problem for programs (about:blank: the status says it all), `extra` are further members.
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
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.kind = f"urn:runnerd:problem:{kind}" if kind else "about:blank"
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The document."""
        members = {
            "type": self.kind,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        return json.dumps(members | self.extra).encode() + b"\n"
