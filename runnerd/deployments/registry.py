"""Stores this host's deployments: each as declared in conf.d, with its id and state in the API.

Invariants: the API is polled for the runs of an entry exactly when the entry has a deployment id and is in no work
pool: a pool's runs belong to its workers; `state` and `problem` are only shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from runnerd.core.commands import CommandRules
from runnerd.core.limits import Caps, Group, PoolCaps
from runnerd.core.place import Problem
from runnerd.core.settings import DeclaredKey, Deployment, LimitSettings, key_of


class EntryState(StrEnum):
    """The state of a deployment in `runnerctl deployments`."""

    READY = "ready"
    PAUSED = "paused"
    INVALID = "invalid"  # its file has a problem, and the last good version, if any, is in force; or it is a double
    UNREGISTERED = "unregistered"  # not in the API yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One deployment. `flow` is None until its code was inspected, `deployment_id` until it was registered.

    `problem`: why it cannot be read or registered; `invalid`: the problem is in its file; `double`: another place
    declares the same flow and name, and stays in force. `flaws`: what is wrong with it although it is registered.
    """

    deployment: Deployment
    flow: str | None = None
    deployment_id: str | None = None
    paused: bool = False
    problem: str | None = None
    flaws: tuple[Problem, ...] = ()
    invalid: bool = False
    double: bool = False
    next_run_at: datetime | None = None
    prefect_version: str | None = None  # of the flow's interpreter; None until its code was inspected

    @property
    def state(self) -> EntryState:
        """The state to show."""
        if self.invalid or self.double:
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
        """The concurrent runs allowed on this host: the lower one of run.limit and concurrency_limit."""
        return _lowest(self.deployment.run.limit, self.deployment.concurrency_limit)

    @property
    def waiting_limit(self) -> int | None:
        """The concurrent runs from which on others wait here: `limit`, without those of `groups` and `cancelling`."""
        run = self.deployment.run
        own = run.limit if run.limit_group is None else None
        return _lowest(own, None if self._cancels_new else self.deployment.concurrency_limit)

    @property
    def cancelling_limit(self) -> int | None:
        """The concurrent runs from which on new ones are cancelled (CANCEL_NEW); None when none are."""
        return self.deployment.concurrency_limit if self._cancels_new else None

    @property
    def _cancels_new(self) -> bool:
        return self.deployment.collision_strategy == "CANCEL_NEW"


def _lowest(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


_LEFT_MAX = 1000  # removed entries that are remembered, for the ends of their runs

Key = DeclaredKey  # unique in conf.d, and known without running the flow's code


class Registry:
    """Stores the entries by key and by deployment id."""

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
        self._by_id: dict[str, Key] = {}
        self._left: dict[str, Entry] = {}  # by deployment id: removed since the daemon started, the oldest first

    def entries(self) -> list[Entry]:
        """Return all entries."""
        return list(self._entries.values())

    def get(self, key: Key) -> Entry | None:
        """Return the entry of a key."""
        return self._entries.get(key)

    def put(self, entry: Entry) -> None:
        """Add an entry, or replace the one with the same key."""
        key = key_of(entry.deployment)
        old = self._entries.get(key)
        if old is not None and old.deployment_id is not None:
            self._by_id.pop(old.deployment_id, None)
        self._entries[key] = entry
        if entry.deployment_id is not None:
            self._by_id[entry.deployment_id] = key

    def remove(self, key: Key) -> None:
        """Remove the entry of a key, if there is one."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.deployment_id is not None:
            self._by_id.pop(entry.deployment_id, None)
            self._left.pop(entry.deployment_id, None)
            self._left[entry.deployment_id] = entry
            if len(self._left) > _LEFT_MAX:
                del self._left[next(iter(self._left))]

    def by_id(self, deployment_id: str | None) -> Entry | None:
        """Return the entry with this deployment id."""
        key = self._by_id.get(deployment_id or "")
        return self._entries.get(key) if key else None

    def last_known(self, deployment_id: str | None) -> Entry | None:
        """Return the entry with this deployment id, also one that was removed while a run of it may be under way."""
        return self.by_id(deployment_id) or self._left.get(deployment_id or "")

    def command_of(self, deployment_id: str | None) -> CommandRules | None:
        """Return the rules of the deployment's command; None for a flow's, and where the deployment is not known."""
        entry = self.last_known(deployment_id)
        command = entry.deployment.command if entry is not None else None
        return command.rules if command is not None else None

    def own(self, deployment_id: str | None) -> Entry | None:
        """Return the entry with this deployment id if this host starts its runs: not in a work pool."""
        entry = self.by_id(deployment_id)
        return entry if entry is not None and entry.deployment.work_pool is None else None

    def ids(self) -> list[str]:
        """Return the ids of all registered deployments."""
        return list(self._by_id)

    def own_ids(self) -> list[str]:
        """Return the deployment ids to poll for."""
        return [one for one in self._by_id if self.own(one) is not None]

    def find(self, ref: str) -> list[Entry]:
        """Return the entries whose id, `flow/name` or name is `ref`; doubles only if there is no other."""
        found = [e for e in self._entries.values() if ref in (e.deployment_id, e.full_name, e.deployment.name)]
        return [e for e in found if not e.double] or found

    def other_with(self, flow: str, name: str, *, than: Key) -> Entry | None:
        """Return the registered entry with this flow and name, which the API takes for one, if its key is another."""
        for key, entry in self._entries.items():
            same = (entry.flow, entry.deployment.name) == (flow, name)
            if same and key != than and entry.deployment_id is not None and not entry.double:
                return entry
        return None

    def note_next_runs(self, due: Mapping[str, datetime]) -> None:
        """Set each entry's next start from `due`, by deployment id; None for entries that are not in `due`."""
        for deployment_id, key in self._by_id.items():
            entry = self._entries[key]
            if entry.next_run_at != due.get(deployment_id):
                self._entries[key] = replace(entry, next_run_at=due.get(deployment_id))

    def note_next_run(self, deployment_id: str, at: datetime | None) -> None:
        """Set the next start of the entry with this deployment id, if there is one."""
        entry = self.by_id(deployment_id)
        if entry is not None:
            self._entries[key_of(entry.deployment)] = replace(entry, next_run_at=at)

    def caps(self, limits: LimitSettings, *, pools: Mapping[str, PoolCaps], server_cancels: bool = True) -> Caps:
        """Return the concurrency limits in force: of the host, of tags, of these deployments and of `pools`.

        `server_cancels`: the server applies CANCEL_NEW when a run is claimed, so this host does not.
        """
        own = {key: self._entries[of] for key, of in self._by_id.items()}
        waiting = {key: e.waiting_limit for key, e in own.items() if e.waiting_limit is not None}
        cancelling = {key: e.cancelling_limit for key, e in own.items() if e.cancelling_limit is not None}
        groups = {
            key: Group(name=entry.deployment.run.limit_group, runs=entry.deployment.run.limit)
            for key, entry in own.items()
            if entry.deployment.run.limit_group is not None
        }
        return Caps(
            runs=limits.runs,
            tags=limits.tags,
            deployments=waiting,
            pools=pools,
            cancelling={} if server_cancels else cancelling,
            groups=groups,
        )
