"""Holds where the code of a deployment comes from, and the version of it that is checked out. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

SourceKind = Literal["git", "remote", "directory"]

PULL_INTERVAL_S = 60.0  # as Prefect's runner
TIME_LIMIT_S = 300.0
SIZE_MAX_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Holds the `source:` of a deployment. `url`: of a repository, an fsspec URL, or the path of a directory.

    At most one of branch, tag and commit is set, and at most one of the three ways to the credentials.
    """

    kind: SourceKind
    url: str
    branch: str | None = None
    tag: str | None = None
    commit: str | None = None
    include_submodules: bool = False
    directories: tuple[str, ...] = ()  # empty: the whole tree
    credentials_file: str | None = None
    credential: str | None = None  # the name of one that systemd passes to runnerd.service
    credentials_block: str | None = None  # of Prefect: type/name
    pull_interval_s: float = PULL_INTERVAL_S
    time_limit_s: float = TIME_LIMIT_S  # of one pull
    size_max_bytes: int = SIZE_MAX_BYTES  # of one tree, and of what one pull fetches

    @property
    def is_pulled(self) -> bool:
        """Whether its versions are fetched and checked out; a local directory is used where it is."""
        return self.kind != "directory"

    def describe(self) -> str:
        """Name the source and what is taken of it, without secrets."""
        which = next(
            (f" {word} {value}" for word in ("branch", "tag", "commit") if (value := getattr(self, word)) is not None),
            "",
        )
        return f"{without_secrets(self.url)}{which}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Holds one version that is checked out: `commit` names its content, `directory` is where it is."""

    commit: str
    directory: str


def without_secrets(url: str) -> str:
    """Return the URL without user, password, query and fragment."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
