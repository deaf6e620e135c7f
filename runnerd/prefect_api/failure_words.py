"""Failures in words: what an HTTP answer or a broken connection means, in one line that carries no secret.

An httpx exception's own text is never shown: it may quote a header.
"""

from __future__ import annotations

import errno
import math
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import datetime

import httpx

from runnerd.core.place import Json
from runnerd.prefect_api.validation_words import shorten, validation_words

_LONGEST = 1000
# The first that fits is taken, so the special ones come before the general ones.
_HTTPX_WORDS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((httpx.ConnectTimeout,), "no connection in time"),
    ((httpx.PoolTimeout,), "all connections stayed busy"),
    ((httpx.TimeoutException, TimeoutError), "no answer in time"),
    ((httpx.LocalProtocolError, UnicodeError), "the request cannot be sent; is a header in api.headers malformed?"),
    (
        (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError),
        "the connection broke in the middle of an answer",
    ),
    ((httpx.DecodingError,), "the answer's compression is broken"),
    ((httpx.ProxyError,), "the proxy refused"),
    ((httpx.TooManyRedirects,), "it redirects in a circle"),
    ((httpx.UnsupportedProtocol, httpx.InvalidURL), "the URL is neither http nor https"),
)
# Longer than this and a mistaken header would keep a host away from a server that is long back.
_LONGEST_WAIT_S = 600.0


def broken_words(error: BaseException) -> str:
    """Why a request got no answer."""
    for cause in _causes(error):
        if words := _cause_words(cause):
            return words
    return _httpx_words(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The chain of causes; of a group (one per address tried) the last stands for all."""
    while error is not None:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[-1]
        yield error
        error = error.__cause__ or error.__context__


def _cause_words(cause: BaseException) -> str | None:
    match cause:
        case ssl.SSLCertVerificationError():
            return f"the server's certificate is not accepted ({cause.verify_message})"
        case ssl.SSLError():
            return "TLS failed; is it an https server?"
        case socket.gaierror():
            return "the host name does not resolve"
        case OSError(errno=int(number)) if number in errno.errorcode:
            return os.strerror(number).lower()
    return None


def _httpx_words(error: BaseException) -> str:
    for kinds, words in _HTTPX_WORDS:
        if isinstance(error, kinds):
            return words
    return "no connection"


def server_words(data: Json) -> str:
    """The server's own explanation of an error answer, shortened; empty when it gave none."""
    if not isinstance(data, dict):
        return ""
    detail = data.get("exception_detail") or data.get("detail")
    if isinstance(detail, list):
        return validation_words(detail, longest=_LONGEST)
    message = detail if isinstance(detail, str) else data.get("exception_message")
    return shorten(message, _LONGEST) if isinstance(message, str) else ""


def retry_after_s(value: str | None, *, now: datetime) -> float | None:
    """A Retry-After header in seconds from now, None when there is none that makes sense."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value, now)
    return min(seconds, _LONGEST_WAIT_S) if math.isfinite(seconds) and seconds >= 0 else None


def _seconds_until(value: str, now: datetime) -> float:
    from email.utils import parsedate_to_datetime  # rare, and httpx has loaded it already

    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError):  # no date, or one without an offset
        return math.nan
