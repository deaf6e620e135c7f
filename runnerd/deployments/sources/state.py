"""Stores what the next daemon must know of the sources: which version of each is in force, and which is held.

Invariant: the file is replaced as a whole, and one that cannot be read counts as empty: the next pull makes it again.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from runnerd.core.codec import Decoder, to_json
from runnerd.core.source import Tree

HISTORY_MAX = 10  # versions of a source that `revert` finds by themselves
_SOURCES_MAX = 20_000  # twice the deployments that one file may have
_FILE_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledState:
    """Holds what is known of one source: the tree in force, since when, the held version, and those before, the last
    one first."""

    tree: Tree | None = None
    pulled_at: datetime | None = None
    held: str | None = None
    history: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    token: str = ""
    sources: Mapping[str, PulledState] = field(default_factory=dict)


class SourceState:
    """Holds the state of all sources, by their keys, in the file at `path`.

    `token` is random: a part of the names of folders in a directory that other users may write to as well.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        found = self._read()
        self.token = found.token or secrets.token_hex(8)
        self._sources = dict(found.sources)

    def _read(self) -> _Document:
        try:
            with open(self._path, "rb") as file:
                return Decoder().decode(_Document, json.loads(file.read(_FILE_MAX_BYTES)))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return _Document()

    def get(self, key: str) -> PulledState:
        """Return what is known of the source with this key."""
        return self._sources.get(key, PulledState())

    def put(self, key: str, state: PulledState) -> None:
        """Save it; of many, those that were saved last. Raises OSError."""
        self._sources.pop(key, None)
        self._sources[key] = state
        if len(self._sources) > _SOURCES_MAX:
            del self._sources[next(iter(self._sources))]
        self._write()

    def _write(self) -> None:
        document = _Document(token=self.token, sources=self._sources)
        new = f"{self._path}.new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(to_json(document), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self._path)
