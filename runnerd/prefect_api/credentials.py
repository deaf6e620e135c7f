"""Reads the credentials for the API, a bearer key or a basic auth string, from files that may be replaced any time.

No repr and no message of this module has a secret in it.
"""

from __future__ import annotations

import errno
import os
import stat
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field

from runnerd.core.errors import ApiDenied
from runnerd.core.settings import ApiSettings

_BYTES_MAX = 64 * 1024  # of a credential file


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Holds a key and an auth string (user:password), which is used if both are set, as in Prefect's own client.

    `outdated`: they were read earlier, and cannot be read now; better ones are asked for at each request.
    """

    key: str | None = field(default=None, repr=False)
    auth_string: str | None = field(default=None, repr=False)
    outdated: bool = field(default=False, compare=False)

    @property
    def kind(self) -> str:
        """The name of these credentials in messages."""
        if self.auth_string is not None:
            return "the auth string"
        return "the API key" if self.key is not None else "a request without credentials"

    def header(self) -> dict[str, str]:
        """Make the Authorization header; empty without credentials."""
        if self.auth_string is not None:
            return {"Authorization": f"Basic {b64encode(self.auth_string.encode()).decode()}"}
        return {"Authorization": f"Bearer {self.key}"} if self.key is not None else {}


def credential_files(settings: ApiSettings) -> Callable[[], Credentials]:
    """Make a function that reads the configured files at each call, and raises ApiDenied when it cannot."""

    def read() -> Credentials:
        return Credentials(
            key=_read_secret("API key", settings.key_file),
            auth_string=_read_secret("auth string", settings.auth_string_file),
        )

    return read


def checked_secret(text: str, *, what: str, where: str) -> str:
    """Return `text` if a header can carry it. Raises ApiDenied, in words without the secret.

    A line break or control character would be refused inside the HTTP library, in a message that quotes the header.
    """
    if not text or not text.isprintable() or not text.isascii():
        raise ApiDenied(f"cannot use the {what} in {where}: it must be one line of printable ASCII text")
    return text


def _read_secret(what: str, path: str | None) -> str | None:
    if path is None:
        return None
    try:
        text = _read_regular(path).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "the file is not UTF-8 text"
        raise ApiDenied(f"cannot read the {what} file {path}: {cause}") from None
    return checked_secret(text, what=what, where=path)


def _read_regular(path: str) -> bytes:
    """Read the start of a regular file. Raises OSError; a FIFO or a device might block or never end."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        opened = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            return os.read(opened, _BYTES_MAX)
        finally:
            os.close(opened)
    finally:
        os.close(descriptor)
