"""What launchers make of a run's record: the contract that deployments' and pools' launchers keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.process import LaunchSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What to start for a run, or why nothing can be; who it will be; and fields of its record that are known by now.

    `user` is never what the run's environment says: that may come from the API.
    """

    start: LaunchSpec | str
    user: str | None = None
    learnt: Mapping[str, Json] = field(default_factory=dict)


class HookLauncher(Protocol):
    """Makes the launch spec of a run's hooks; a sentence where they cannot be started."""

    async def hooks(self, record: RunRecord) -> LaunchSpec | str: ...


class Launcher(HookLauncher, Protocol):
    """Makes what is to be started for a run. May raise ApiError."""

    async def prepare(self, record: RunRecord) -> Prepared: ...


class Launchers:
    """Of any run: one of this host's own deployments, or of a work pool."""

    def __init__(self, *, own: Launcher, pools: Launcher) -> None:
        self._own = own
        self._pools = pools

    async def prepare(self, record: RunRecord) -> Prepared:
        return await (self._own if record.pool is None else self._pools).prepare(record)

    async def hooks(self, record: RunRecord) -> LaunchSpec | str:
        return await (self._own if record.pool is None else self._pools).hooks(record)
