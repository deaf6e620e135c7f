"""Describes failed requests: what an HTTP answer or a broken connection means, in one line without secrets.

The text of an httpx exception is never shown: it may quote a header.
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
# The first match is used, so subclasses come before their base classes.
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
    ((httpx.TooManyRedirects,), "too many redirects"),
    ((httpx.UnsupportedProtocol, httpx.InvalidURL), "the URL is neither http nor https"),
)
# Without this bound a wrong header would keep a host from polling a server that answers again.
_LONGEST_WAIT_S = 600.0


def broken_words(error: BaseException) -> str:
    """Describe why a request got no answer."""
    for cause in _causes(error):
        if words := _cause_words(cause):
            return words
    return _httpx_words(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the chain of causes; of a group (one exception per address tried) only the last."""
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
    """Return the server's explanation in an error answer, shortened; empty when there is none."""
    if not isinstance(data, dict):
        return ""
    detail = data.get("exception_detail") or data.get("detail")
    if isinstance(detail, list):
        return validation_words(detail, longest=_LONGEST)
    message = detail if isinstance(detail, str) else data.get("exception_message")
    return shorten(message, _LONGEST) if isinstance(message, str) else ""


def retry_after_s(value: str | None, *, now: datetime) -> float | None:
    """Parse a Retry-After header into seconds from now; None when it is absent or invalid."""
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
    except (TypeError, ValueError):  # not a date, or a date without an offset
        return math.nan
