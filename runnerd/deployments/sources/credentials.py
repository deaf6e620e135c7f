"""Reads the credentials of a source: from a file, from systemd's credentials, or from a block of Prefect.

Invariants: read at each pull, so that a rotated secret needs no restart; the secret is in no repr and no message; what
prevents reading is one sentence.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from runnerd.core.errors import ApiError
from runnerd.core.place import Json
from runnerd.core.source import Source
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.files.regular import read_regular
from runnerd.prefect_api.pools import PoolsApi

_FILE_MAX_BYTES = 65536
_NAMES_OF_TOKENS = ("token", "access_token", "password", "value")
# The user that goes with a token where none is named, by a part of the server's name; as Prefect's clone steps do it.
_USERS = (("gitlab", "oauth2"), ("bitbucket", "x-token-auth"))
_USER = "x-access-token"


@dataclass(frozen=True, slots=True)
class Login:
    """A user and a password or token."""

    user: str
    password: str = field(repr=False)


class SourceCredentials:
    """Reads them. `directory`: that of systemd's credentials, None without."""

    def __init__(self, *, pools: PoolsApi, calls: BoundedCalls, directory: str | None) -> None:
        self._pools = pools
        self._calls = calls
        self._directory = directory

    async def read(self, source: Source) -> Login | str | None:
        """Return the login; None where the source names none; a sentence where it cannot be read."""
        if source.credentials_block is not None:
            return await self._read_block(source, source.credentials_block)
        path = source.credentials_file
        if source.credential is not None:
            if self._directory is None:
                return f"systemd has passed no credential {source.credential} to runnerd; see LoadCredential="
            path = os.path.join(self._directory, source.credential)
        if path is None:
            return None
        name = path
        try:
            data = await self._calls.call(os.path.dirname(name), partial(read_regular, name, max_bytes=_FILE_MAX_BYTES))
        except OSError as error:
            return f"cannot read the credentials {path}: {error.strerror or error}"
        if isinstance(data, Unanswered):
            return f"the credentials {path}: {data.words}"
        return (
            parse_login(data.decode("utf-8", "replace"), url=source.url) or f"the credentials {path}: the file is empty"
        )

    async def _read_block(self, source: Source, name: str) -> Login | str:
        slug, _, its = name.partition("/")
        try:
            block = await self._pools.block_by_name(slug, its)
        except ApiError as error:
            return f"cannot read the block {name}: {error}"
        if block is None:
            return f"there is no block {name} in Prefect"
        return login_of_block(block.data, url=source.url) or f"the block {name} has no token and no password"


def parse_login(text: str, *, url: str) -> Login | None:
    """Parse `user:password`, or a token alone, which the last line break may follow; None when there is nothing."""
    line = text.strip("\r\n")
    if not line or "\n" in line or "\0" in line:
        return None
    user, colon, password = line.partition(":")
    if colon and user and password:
        return Login(user, password)
    return Login(_user_for(url), line)


def login_of_block(data: Mapping[str, Json], *, url: str) -> Login | None:
    """Find the login in the data of a block: Secret, GitHubCredentials, GitLabCredentials, BitBucketCredentials."""
    token = next((data[name] for name in _NAMES_OF_TOKENS if isinstance(data.get(name), str) and data[name]), None)
    if token is None or "\n" in token:
        return None
    user = data.get("username")
    if isinstance(user, str) and user and "\n" not in user:
        return Login(user, token)
    return parse_login(token, url=url)


def _user_for(url: str) -> str:
    return next((user for part, user in _USERS if part in url), _USER)
