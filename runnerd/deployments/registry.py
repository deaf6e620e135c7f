"""The table of this host's deployments: what the files ask for, and how far the API has it.

Invariant: an entry is offered runs exactly when it has a deployment id; `state` and `problem` are for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from runnerd.core.limits import Caps, PoolCaps
from runnerd.core.settings import Deployment, LimitSettings


class EntryState(StrEnum):
    """A deployment as `runnerctl deployments` shows it."""

    READY = "ready"
    PAUSED = "paused"
    INVALID = "invalid"  # its file is broken; the last good version, if any, is in force
    UNREGISTERED = "unregistered"  # the API does not have it yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One deployment. `flow` and `deployment_id` are None until its code and the API were asked."""

    deployment: Deployment
    flow: str | None = None
    deployment_id: str | None = None
    paused: bool = False
    problem: str | None = None
    invalid: bool = False
    next_run_at: datetime | None = None

    @property
    def state(self) -> EntryState:
        if self.invalid:
            return EntryState.INVALID
        if self.deployment_id is None:
            return EntryState.UNREGISTERED
        return EntryState.PAUSED if self.paused else EntryState.READY

    @property
    def full_name(self) -> str:
        """`flow/name` as Prefect writes it; the name alone while the flow is not known."""
        return f"{self.flow}/{self.deployment.name}" if self.flow else self.deployment.name

    @property
    def limit(self) -> int | None:
        """Concurrent runs of it on this host: run.limit and concurrency_limit, the lower one."""
        limits = [n for n in (self.deployment.run.limit, self.deployment.concurrency_limit) if n is not None]
        return min(limits) if limits else None


Key = tuple[str, str]  # entrypoint, name: what a file alone can tell apart


def key_of(deployment: Deployment) -> Key:
    return (deployment.entrypoint, deployment.name)


class Registry:
    """Entries by their key and by their deployment id."""

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
        self._by_id: dict[str, Key] = {}

    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def get(self, key: Key) -> Entry | None:
        return self._entries.get(key)

    def put(self, entry: Entry) -> None:
        key = key_of(entry.deployment)
        old = self._entries.get(key)
        if old is not None and old.deployment_id is not None:
            self._by_id.pop(old.deployment_id, None)
        self._entries[key] = entry
        if entry.deployment_id is not None:
            self._by_id[entry.deployment_id] = key

    def remove(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.deployment_id is not None:
            self._by_id.pop(entry.deployment_id, None)

    def by_id(self, deployment_id: str | None) -> Entry | None:
        key = self._by_id.get(deployment_id or "")
        return self._entries.get(key) if key else None

    def ids(self) -> list[str]:
        """The deployment ids to poll for."""
        return list(self._by_id)

    def find(self, ref: str) -> list[Entry]:
        """Entries by id, `flow/name` or name."""
        return [e for e in self._entries.values() if ref in (e.deployment_id, e.full_name, e.deployment.name)]

    def note_next_runs(self, due: Mapping[str, datetime]) -> None:
        """What the API said of each deployment's next start, by deployment id; the others have none that is known."""
        for deployment_id, key in self._by_id.items():
            entry = self._entries[key]
            if entry.next_run_at != due.get(deployment_id):
                self._entries[key] = replace(entry, next_run_at=due.get(deployment_id))

    def caps(self, limits: LimitSettings, *, pools: Mapping[str, PoolCaps]) -> Caps:
        """The limits in force over these deployments and pools."""
        own = {e.deployment_id: e.limit for e in self._entries.values() if e.deployment_id and e.limit is not None}
        return Caps(runs=limits.runs, tags=limits.tags, deployments=own, pools=pools)
