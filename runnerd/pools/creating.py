"""Finds the work pool, its template and its queues before a pool is served, and creates those that are missing.

Invariant: a pool or queue that cannot be had is one sentence that says what to do, never an exception; losing a race
to another host that creates the same is no failure.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from shlex import quote

from runnerd.config.files import read_text
from runnerd.core.errors import ConfigError
from runnerd.core.place import Json
from runnerd.core.prefect import AGENT, PROCESS, NewPool, NewQueue, WorkPool, WorkQueue
from runnerd.core.settings import PoolSettings
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.pools.job.process_job import process_template
from runnerd.prefect_api.answers import ApiRefusal
from runnerd.prefect_api.pools import PoolsApi


async def find_or_create_pool(
    api: PoolsApi, settings: PoolSettings, *, major: int, calls: BoundedCalls
) -> WorkPool | str:
    """Read the pool, or create it if it is missing and `create` allows that; else say why there is none."""
    pool = await api.read_pool(settings.name)
    if pool is None:
        return await _create_pool(api, settings, major, calls)
    if pool.type == PROCESS and not pool.base_job_template and settings.create:
        # Prefect's API creates pools without a template by itself; the UI then offers no variables.
        template = process_template(major)
        await api.update_pool(pool.name, {"base_job_template": template})
        return replace(pool, base_job_template=template)
    return pool


async def _create_pool(api: PoolsApi, settings: PoolSettings, major: int, calls: BoundedCalls) -> WorkPool | str:
    if not settings.create:
        kind = f" --type {quote(settings.type)}" if settings.type else ""
        command = f"runnerctl pool create {quote(settings.name)}{kind}"
        return (
            f"work pool {settings.name} does not exist, and create is false; create it ({command}), or set create: true"
        )
    kind = settings.type or PROCESS
    if why := _type_problem(settings.name, kind, major=major):
        return why
    path = settings.base_job_template
    if path is not None:
        read = await calls.call(os.path.dirname(path), lambda: _read_template(path))
        template = f"base_job_template {path}: {read.words}" if isinstance(read, Unanswered) else read
    else:
        template = await _choose_template(api, settings, kind, major)
    if isinstance(template, str):
        return template
    made = await api.create_pool(NewPool(name=settings.name, type=kind, base_job_template=template))
    if isinstance(made, ApiRefusal):
        there = await api.read_pool(settings.name)  # another host was quicker
        return there or f"cannot create work pool {settings.name}: {made.reason}"
    return made


async def _choose_template(api: PoolsApi, settings: PoolSettings, kind: str, major: int) -> Mapping[str, Json] | str:
    if kind == AGENT:
        return {}
    if kind == PROCESS:
        return process_template(major)
    types = await api.worker_types()
    if kind not in types:
        known = ", ".join(sorted(types))
        return f"cannot create work pool {settings.name}: there is no type {kind}; there are {known}"
    return types[kind].template


def _read_template(path: str) -> Mapping[str, Json] | str:
    try:
        found = json.loads(read_text(path))
    except FileNotFoundError:
        return f"cannot read base_job_template {path}: No such file or directory"
    except ConfigError as error:
        return f"cannot read base_job_template {path}: it {error.problems[0].message}"
    except (ValueError, RecursionError) as error:  # RecursionError: thousands of nested brackets
        return f"cannot read base_job_template {path}: it is not JSON: {error}"
    if not isinstance(found, dict) or not {"job_configuration", "variables"} <= set(found):
        return f"base_job_template {path} is none: it must be a map with job_configuration and variables"
    return found


def why_unservable(pool: WorkPool, settings: PoolSettings, *, major: int) -> str | None:
    """Say why this pool cannot be served as `settings` want it; None when it can."""
    if settings.type is not None and settings.type != pool.type:
        return f"work pool {pool.name} is of type {pool.type}, not {settings.type}; correct type, or leave it out"
    return _type_problem(pool.name, pool.type, major=major)


def _type_problem(name: str, kind: str, *, major: int) -> str | None:
    if kind == AGENT and major >= 3:
        return f"work pool {name} is of type {AGENT}, which Prefect 3 has no more; move to a pool of type process"
    if kind.endswith((":push", ":managed")):
        return f"work pool {name} is of type {kind}: Prefect runs its flows itself, no worker can serve it"
    return None


async def find_or_create_queues(api: PoolsApi, settings: PoolSettings) -> tuple[WorkQueue, ...] | str:
    """Find the queues to serve, by priority, and create the missing ones if `create` allows that; else say why not."""
    queues = await api.queues(settings.name, prefixes=settings.match)
    there = {queue.name: queue for queue in queues}
    missing = [name for name in settings.queues if name not in there]
    if missing and not settings.create:
        command = f"runnerctl queue create --pool {quote(settings.name)} {quote(missing[0])}"
        what = f"work pool {settings.name} has no queue {missing[0]}, and create is false"
        return f"{what}; create it ({command}), or set create: true"
    # In a pool with no queue but its default one, priorities follow the list; else new queues come last.
    untouched = set(there) <= {"default"}
    for name in missing:
        priority = settings.queues.index(name) + 1 if untouched else None
        made = await api.create_queue(NewQueue(pool=settings.name, name=name, priority=priority))
        if isinstance(made, ApiRefusal):
            there = {queue.name: queue for queue in await api.queues(settings.name)}
            if name not in there:  # else another host was quicker
                return f"cannot create queue {name} of work pool {settings.name}: {made.reason}"
    if missing:  # each new queue has changed the priorities of others
        there = {queue.name: queue for queue in await api.queues(settings.name)}
    served = [there[name] for name in settings.queues if name in there] if settings.queues else list(there.values())
    return tuple(sorted(served, key=lambda queue: (queue.priority, queue.name)))
