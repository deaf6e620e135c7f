"""Sends the HTTP POST of a notice.

Invariants: the URL, its file's content and the token are in no message; a redirect is not followed, because the body
and the token are for the host that the file names; nothing of an answer is read but its status.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import httpx

from runnerd.config.notices import read_post_url
from runnerd.core.notices import Notice, NoticeTarget
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.files.regular import read_regular
from runnerd.notices.bodies import make_body
from runnerd.prefect_api.failure_words import broken_words

_FILE_MAX_BYTES = 65536


class _Unusable(Exception):
    """Means that the POST cannot be made; the message says why."""


class Poster:
    """Sends POSTs. `open_client` makes the HTTP client of one, for its URL and the seconds that it may take."""

    def __init__(self, *, calls: BoundedCalls, open_client: Callable[[httpx.URL, float], httpx.AsyncClient]) -> None:
        self._calls = calls
        self._open_client = open_client

    async def send(self, notice: Notice) -> str | None:
        """Send the notice; return why that has failed, None when it has not."""
        try:
            async with asyncio.timeout(notice.target.timeout_s):
                # In a task of its own: see prefect_api/transport.py.
                return await asyncio.create_task(self._post(notice), name=f"notice {notice.id}")
        except _Unusable as error:
            return str(error)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError) as error:
            return broken_words(error)  # the text of the exception may quote the URL or a header

    async def _post(self, notice: Notice) -> str | None:
        target = notice.target
        url = httpx.URL(await self._url(target))
        content, headers = make_body(notice)
        if target.token_file is not None:
            headers["Authorization"] = f"Bearer {await self._read(target.token_file)}"
        # In a thread: the client of https reads the certificates of this host's authorities.
        client = await asyncio.to_thread(self._open_client, url, target.timeout_s)
        client.event_hooks = {"response": [_drop_location]}
        async with (
            client,
            client.stream("POST", url, content=content, headers=headers, follow_redirects=False) as response,
        ):
            status = response.status_code
        if 200 <= status < 300:
            return None
        if 300 <= status < 400:
            return f"HTTP {status}: it redirects, which is not followed; write the URL to which it leads"
        return f"HTTP {status}"

    async def _url(self, target: NoticeTarget) -> str:
        if target.post is not None:
            return target.post
        assert target.post_file is not None
        try:
            return read_post_url(await self._read(target.post_file))
        except ValueError:
            raise _Unusable(f"{target.post_file} holds no http or https URL") from None

    async def _read(self, path: str) -> str:
        """Read a file of one line."""
        try:
            found = await self._calls.call(os.path.dirname(path), lambda: read_regular(path, max_bytes=_FILE_MAX_BYTES))
        except OSError as error:
            raise _Unusable(f"cannot read {path}: {error.strerror}") from None
        if isinstance(found, Unanswered):
            raise _Unusable(f"cannot read {path}: it {found}")
        text = found.decode("ascii", "replace").strip()
        if not text or not text.isprintable() or not text.isascii():
            raise _Unusable(f"cannot use {path}: it must hold one line of printable ASCII text")
        return text


async def _drop_location(response: httpx.Response) -> None:
    """Hide the Location from httpx, which would raise at a URL that it cannot parse, though it follows none."""
    response.headers.pop("Location", None)
