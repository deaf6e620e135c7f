"""Holds what is known of each source that deployments have in common: one entry for equal settings and one user.

Pure but for the state file. Deployments of one repository with other branches have entries of their own, and one place
for its objects.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from runnerd.core.codec import to_json
from runnerd.core.settings import Deployment, RunSettings
from runnerd.core.source import Source, Tree
from runnerd.deployments.sources.state import HISTORY_MAX, PulledState, SourceState

_NOT_OF_ITS_KEY = ("pull_interval_s", "time_limit_s", "size_max_bytes")


@dataclass(slots=True, eq=False)
class PulledSource:
    """One source. `run`: with whose settings it is pulled; `problem`: why the last pull has failed.

    `tried_at`: by the clock, when a pull was last begun; None when it is to be pulled now. `outside`: paths of
    entrypoints that lead out of the tree. `pull`: the task of a pull under way.
    """

    key: str
    source: Source
    run: RunSettings
    deployments: tuple[Deployment, ...] = ()
    state: PulledState = field(default_factory=PulledState)
    pulled_at: datetime | None = None
    tried_at: float | None = None
    tried: bool = False
    problem: str | None = None
    outside: frozenset[str] = frozenset()
    pull: asyncio.Task[str | None] | None = None

    @property
    def tree(self) -> Tree | None:
        """The tree in force."""
        return self.state.tree

    def is_due(self, now: float) -> bool:
        """Whether its last pull is older than its interval; one that is pulled just now is not."""
        if self.pull is not None and not self.pull.done():
            return False
        return self.tried_at is None or now - self.tried_at >= self.source.pull_interval_s

    def entrypoints(self) -> list[str]:
        """List the paths in the tree that its deployments name."""
        return sorted({path for one in self.deployments if (path := entrypoint_path(one.entrypoint)) is not None})

    def version(self, ref: str | None) -> str | None:
        """Find the version before the one in force, or the one of those known whose name begins with `ref`."""
        if ref is None:
            return self.state.history[0] if self.state.history else None
        known = [*self.state.history, *([self.tree.commit] if self.tree is not None else [])]
        found = {one for one in known if one.startswith(ref)}
        return found.pop() if len(found) == 1 else None

    def take(self, tree: Tree, at: datetime) -> bool:
        """Take a pulled tree; return whether it is another one than before."""
        self.pulled_at = at
        before = self.state.tree
        if tree == before:
            return False
        old = [] if before is None or before.commit == tree.commit else [before.commit]
        history = [one for one in dict.fromkeys((*old, *self.state.history)) if one != tree.commit]
        self.state = PulledState(tree=tree, pulled_at=at, held=self.state.held, history=tuple(history[:HISTORY_MAX]))
        return True


class SourceTable:
    """Holds the sources of the deployments in force."""

    def __init__(self, state: SourceState) -> None:
        self._state = state
        self._sources: dict[str, PulledSource] = {}

    def all(self) -> list[PulledSource]:
        """Return all sources."""
        return list(self._sources.values())

    def of(self, deployment: Deployment) -> PulledSource | None:
        """Return the source of a deployment; None where its code is not pulled."""
        key = key_of_source(deployment)
        return self._sources.get(key) if key is not None else None

    def replace(self, deployments: Iterable[Deployment]) -> None:
        """Hold the sources of these deployments and no others; what is known of them stays."""
        groups: dict[str, list[Deployment]] = {}
        for one in deployments:
            key = key_of_source(one)
            if key is not None:
                groups.setdefault(key, []).append(one)
        self._sources = {key: self._entry(key, members) for key, members in groups.items()}

    def _entry(self, key: str, members: list[Deployment]) -> PulledSource:
        known, first = self._sources.get(key), members[0]
        assert first.source is not None
        if known is None:
            state = self._state.get(key)
            known = PulledSource(key, first.source, first.run, state=state, pulled_at=state.pulled_at)
        elif {*map(_code, members)} - {*map(_code, known.deployments)}:
            known.tried_at = None  # whether another entrypoint is in the tree is not known yet
        known.source, known.run, known.deployments = first.source, first.run, tuple(members)
        return known

    def save(self, one: PulledSource) -> None:
        """Save what the next daemon must know of a source. Raises OSError."""
        self._state.put(one.key, one.state)


def key_of_source(deployment: Deployment) -> str | None:
    """Return the key of what is pulled for a deployment: its source and its user, with the interpreter that pulls."""
    source, run = deployment.source, deployment.run
    if source is None or not source.is_pulled:
        return None
    what = {name: value for name, value in to_json(source).items() if name not in _NOT_OF_ITS_KEY}
    who = [run.user, run.group, run.python if source.kind == "remote" else ""]
    environment = sorted(run.environment.items()) if source.kind == "remote" else []
    text = json.dumps([what, who, environment], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def key_of_store(one: PulledSource) -> tuple[str | None, str]:
    """Return what only one process at a time may change."""
    return one.run.user, one.source.url


def store_name(source: Source) -> str:
    """Return the name of the folder with the trees of a source, as `programs/pull_*.py` make it."""
    return hashlib.sha256(source.url.encode()).hexdigest()[:16]


def store_of(directory: str) -> str:
    """Return the name of the folder that the directory of a tree is in."""
    return os.path.basename(os.path.dirname(os.path.dirname(directory)))


def entrypoint_path(entrypoint: str) -> str | None:
    """Return the path of an entrypoint's file; None for a module's."""
    path = entrypoint.rpartition(":")[0]
    return os.path.normpath(path) if path.endswith(".py") else None


def _code(deployment: Deployment) -> str:
    return deployment.entrypoint
