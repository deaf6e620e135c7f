"""Builds the parts that have warm interpreters started, used and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from runnerd.config.in_force import ConfigInForce
from runnerd.core.problems import Problems
from runnerd.core.record_feed import RecordFeed
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.prepared import Upcoming
from runnerd.processes.link import SpawnerLink
from runnerd.system.ambient import Ambient
from runnerd.warm.keeper import WarmKeeper
from runnerd.warm.memory import find_shortage
from runnerd.warm.table import WarmTable


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmParts:
    """The parts, which share one table."""

    table: WarmTable
    keeper: WarmKeeper


def build_warm(
    *,
    link: SpawnerLink,
    config: ConfigInForce,
    calls: BoundedCalls,
    work_dir: str,
    upcoming: Callable[[], Iterable[Upcoming]],
    claims: Callable[[], bool],
    tasks: asyncio.TaskGroup,
    feed: RecordFeed,
    problems: Problems,
    ambient: Ambient,
) -> WarmParts:
    """Build the parts. `upcoming()` lists scheduled runs; `claims()` is False while this host claims none."""

    def shortage() -> str | None:
        return find_shortage(min_free_bytes=config.settings().warm.min_free_memory_bytes)

    table = WarmTable(
        link=link,
        config=config,
        calls=calls,
        work_dir=work_dir,
        shortage=shortage,
        tasks=tasks,
        ambient=ambient,
    )
    feed.subscribe(table.note_record)
    problems.register(table.problems)
    keeper = WarmKeeper(
        table=table,
        link=link,
        config=config,
        calls=calls,
        upcoming=upcoming,
        claims=claims,
        shortage=shortage,
        ambient=ambient,
    )
    return WarmParts(table=table, keeper=keeper)
