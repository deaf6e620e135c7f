"""Describes failed requests: what an HTTP answer or a broken connection means, in one line without secrets.

The text of an httpx exception is never shown: it may quote a header.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator

import httpx

from runnerd.core.place import Json
from runnerd.prefect_api.validation_words import shorten, validation_words

REASON_MAX = 300  # characters
VALIDATION_MAX = 1000  # characters: it says what to mend, and where
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
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

_NOT_SENT = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError),
    *(httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError),
)


def broken_words(error: BaseException) -> str:
    """Describe why a request got no answer."""
    for cause in _causes(error):
        if words := _cause_words(cause):
            return words
    return _httpx_words(error)


def without_ids(text: str) -> str:
    """Replace ids by `{id}`; a method and path without ids is a kind of request."""
    return _UUID.sub("{id}", text)


def may_have_arrived(error: BaseException) -> bool:
    """Return whether the server may have received the request, and so have done what it asks for."""
    return not isinstance(error, _NOT_SENT)


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
        case BrokenPipeError():
            return "the server closed the connection before it had read the request"
        case OSError(errno=int(number)) if number in errno.errorcode:
            return os.strerror(number).lower()
    return None


def _httpx_words(error: BaseException) -> str:
    for kinds, words in _HTTPX_WORDS:
        if isinstance(error, kinds):
            return words
    return "no connection" if isinstance(error, httpx.HTTPError | OSError) else f"no answer ({type(error).__name__})"


def server_words(data: Json) -> str:
    """Return the server's explanation in an error answer, shortened; empty when there is none."""
    if not isinstance(data, dict):
        return ""
    detail = data.get("exception_detail") or data.get("detail")
    if isinstance(detail, list):
        return validation_words(detail, longest=VALIDATION_MAX)
    message = detail if isinstance(detail, str) else data.get("exception_message")
    return shorten(message, REASON_MAX) if isinstance(message, str) else ""
