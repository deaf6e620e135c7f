"""Builds the parts that notify of the ends of runs, and of late ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx

from runnerd.config.in_force import ConfigInForce
from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun
from runnerd.core.problems import Problems
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.launch.environment import Environments
from runnerd.notices.commands import NoticeCommands
from runnerd.notices.late import LateNotices
from runnerd.notices.making import Find, NoticeMaker
from runnerd.notices.posting import Poster
from runnerd.notices.queue import NoticeQueue
from runnerd.prefect_api.connections import open_client
from runnerd.processes.link import SpawnerLink
from runnerd.system.ambient import Ambient


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeParts:
    """The parts. `maker` also makes the documents of runs that commands before and after these get."""

    maker: NoticeMaker
    queue: NoticeQueue
    late: LateNotices


def build_notices(
    *,
    link: SpawnerLink,
    journal: Journal,
    environments: Environments,
    config: ConfigInForce,
    calls: BoundedCalls,
    work_dir: str,
    find: Find,
    ended: Callable[[RunRecord], Json],
    late: Callable[[FlowRun], Json],
    problems: Problems,
    ambient: Ambient,
) -> NoticeParts:
    """Build the parts. `find`, `ended` and `late` are those of NoticeMaker."""
    maker = NoticeMaker(config=config, find=find, ended=ended, late=late, now=ambient.now, log=ambient.log)
    commands = NoticeCommands(link=link, environments=environments, settings=maker.settings, work_dir=work_dir)
    posts = Poster(calls=calls, open_client=_open_client)
    queue = NoticeQueue(
        journal=journal, commands=commands, posts=posts, target_in_force=maker.target_in_force, ambient=ambient
    )
    config.subscribe(queue.wake)
    problems.register(queue.problems)
    return NoticeParts(maker=maker, queue=queue, late=LateNotices(maker=maker, queue=queue, journal=journal))


def _open_client(url: httpx.URL, timeout_s: float) -> httpx.AsyncClient:
    return open_client(url, timeout_s=timeout_s)
