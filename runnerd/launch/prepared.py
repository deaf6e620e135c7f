"""The contract of the launchers: how one makes a launch spec from a run's record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import RunSettings, StartKind
from runnerd.files.bounded_calls import Unanswered


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmWish:
    """What decides, besides its launch spec, whether a run is forked from a warm interpreter, and from which.

    `owner`: the deployment that an interpreter with preloaded modules belongs to. `prefect_version`: that of the run's
    interpreter, None where it is not known.
    """

    start: StartKind
    preload: tuple[str, ...] = ()
    owner: str
    prefect_version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a launcher made of a run's record.

    `start`: the launch spec, or a sentence why the run cannot be started, or what did not answer and may answer later,
    as a sentence. `user`: the account that the process will
    run as, never taken from the run's environment, because the API may have set that. `record_fields`: fields to
    update in the run's record. `warm`: what decides whether it is forked, None for what never is. `layers`: the
    variables by what sets them, later ones win, for `runnerctl plan`; those in none of them are runnerd's own.
    `secrets`: texts that the command may hold and no document may. `before`, `after`: the administrator's commands
    before the start and after the end.
    """

    start: LaunchSpec | str | Unanswered
    user: str | None = None
    record_fields: Mapping[str, Json] = field(default_factory=dict)
    warm: WarmWish | None = None
    layers: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)  # may hold secrets
    secrets: tuple[str, ...] = field(default=(), repr=False)
    before: tuple[tuple[str, ...], ...] = ()
    before_timeout_s: float = 60.0
    after: tuple[tuple[str, ...], ...] = ()
    after_timeout_s: float = 60.0

    def with_commands(self, run: RunSettings) -> Prepared:
        """Add the commands of these settings."""
        return replace(
            self,
            before=run.before,
            before_timeout_s=run.before_timeout_s,
            after=run.after,
            after_timeout_s=run.after_timeout_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Upcoming:
    """The next scheduled run of one deployment; `prepare` makes a launch spec as that of this run."""

    deployment: str
    at: datetime
    prepare: Callable[[], Awaitable[Prepared]]


class HookLauncher(Protocol):
    """Makes the launch spec of a run's hooks, or says why they cannot be started: Unanswered where later they may."""

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered: ...


class Launcher(HookLauncher, Protocol):
    """Makes the launch spec of a run, or a sentence why the run cannot be started. May raise ApiError."""

    async def prepare(self, record: RunRecord) -> Prepared: ...


class PlanningLauncher(Launcher, Protocol):
    """Launches runs, and makes the launch spec of a run that Prefect need not have, for a plan: nothing is written."""

    async def prepare_plan(self, record: RunRecord, run: FlowRun) -> Prepared: ...


class Launchers:
    """Passes a run's record to the launcher of own deployments, of work pools, or of guests.

    `choose` then names the warm interpreter from which the run is to be forked, where it is to be.
    """

    def __init__(
        self,
        *,
        own: PlanningLauncher,
        pools: PlanningLauncher,
        guests: Launcher,
        choose: Callable[[Prepared], Awaitable[Prepared]],
    ) -> None:
        self._own = own
        self._pools = pools
        self._guests = guests
        self._choose = choose

    async def prepare(self, record: RunRecord) -> Prepared:
        return await self._choose(await self._of(record).prepare(record))

    async def prepare_plan(self, record: RunRecord, run: FlowRun) -> Prepared:
        """Make the launch spec that a start of this run now would have; nothing is started. May raise ApiError.

        Without the choice of a warm interpreter, which would start one.
        """
        if record.guest is not None:
            return await self._guests.prepare(record)
        return await (self._own if record.pool is None else self._pools).prepare_plan(record, run)

    async def prepare_hooks(self, record: RunRecord) -> LaunchSpec | str | Unanswered:
        return await self._of(record).prepare_hooks(record)

    def _of(self, record: RunRecord) -> Launcher:
        if record.guest is not None:
            return self._guests
        return self._own if record.pool is None else self._pools
