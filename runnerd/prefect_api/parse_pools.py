"""Parses Prefect's JSON of work pools, and of what their runs need, into the values of core/prefect.py.

The rules are those of `parse`: a key without which no run can start raises Unreadable when it is invalid; any other
invalid key is treated as absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from runnerd.core.place import Json
from runnerd.core.prefect import (
    BlockDocument,
    FlowRun,
    PoolDeployment,
    Variable,
    WorkerSeen,
    WorkerType,
    WorkPool,
    WorkQueue,
)
from runnerd.prefect_api.parse import parse_flow_run, parse_offer, read_tags
from runnerd.prefect_api.values import (
    NAME_MAX,
    Unreadable,
    needed_id,
    needed_text,
    optional_id,
    optional_text,
    read_time,
    read_whole,
)


def parse_pool(data: Json) -> WorkPool:
    """Parse a work pool; raises Unreadable."""
    data = _object(data, "a work pool")
    return WorkPool(
        id=needed_id(data, "id"),
        name=needed_text(data, "name"),
        type=needed_text(data, "type"),
        description=optional_text(data.get("description")),
        is_paused=data.get("is_paused") is True,
        concurrency_limit=read_whole(data.get("concurrency_limit")),
        base_job_template=_mapping(data.get("base_job_template")),
        status=optional_text(data.get("status")),
        default_queue_id=optional_id(data, "default_queue_id"),
        created=read_time(data.get("created")),
        updated=read_time(data.get("updated")),
    )


def parse_queue(data: Json) -> WorkQueue:
    """Parse a work queue; raises Unreadable."""
    data = _object(data, "a work queue")
    priority, chosen = read_whole(data.get("priority")), data.get("filter")
    return WorkQueue(
        id=needed_id(data, "id"),
        name=needed_text(data, "name"),
        pool=optional_text(data.get("work_pool_name"), longest=NAME_MAX),
        description=optional_text(data.get("description")),
        is_paused=data.get("is_paused") is True,
        concurrency_limit=read_whole(data.get("concurrency_limit")),
        priority=1 if priority is None else priority,
        filter=chosen if isinstance(chosen, dict) else None,
        last_polled=read_time(data.get("last_polled")),
        status=optional_text(data.get("status")),
    )


def parse_worker(data: Json) -> WorkerSeen:
    """Parse a worker; raises Unreadable."""
    data = _object(data, "a worker")
    return WorkerSeen(
        name=needed_text(data, "name"),
        status=optional_text(data.get("status")),
        last_heartbeat=read_time(data.get("last_heartbeat_time")),
    )


def pool_run_parser(pool: str, queues: Mapping[str, str]) -> Callable[[Json], FlowRun]:
    """Make a parser of the runs that this pool offers; `queues` has the names of its queues by id."""

    def parse(data: Json) -> FlowRun:
        data = _object(data, "a run of a pool")
        queue_id = optional_text(data.get("work_queue_id"))
        run = parse_offer(_with_state(_object(data.get("flow_run"), "a flow run")))
        return replace(run, pool=pool, queue=queues.get(queue_id or ""))

    return parse


def parse_placed_run(data: Json) -> FlowRun:
    """Parse a flow run with the names of its pool and queue; raises Unreadable."""
    data = _object(data, "a flow run")
    pool, queue = (optional_text(data.get(key), longest=NAME_MAX) for key in ("work_pool_name", "work_queue_name"))
    return replace(parse_flow_run(data), pool=pool, queue=queue)


def _with_state(run: dict[str, Json]) -> dict[str, Json]:
    """Add the state, which both majors leave out of an offered run, from its type and name beside it."""
    if run.get("state") is not None:
        return run
    details = {"scheduled_time": run.get("next_scheduled_start_time")}
    return {**run, "state": {"type": run.get("state_type"), "name": run.get("state_name"), "state_details": details}}


def parse_pool_deployment(data: Json) -> PoolDeployment:
    """Parse a deployment with the keys that launching its runs needs; raises Unreadable."""
    data = _object(data, "a deployment")
    # 2.20 takes both names in a request and answers with the first; 3.x knows the second.
    overrides = {**_mapping(data.get("infra_overrides")), **_mapping(data.get("job_variables"))}
    return PoolDeployment(
        id=needed_id(data, "id"),
        name=needed_text(data, "name"),
        flow_id=needed_id(data, "flow_id"),
        version=optional_text(data.get("version")),
        job_variables=overrides,
        infrastructure_document_id=optional_text(data.get("infrastructure_document_id")),
        pool=optional_text(data.get("work_pool_name"), longest=NAME_MAX),
        queue=optional_text(data.get("work_queue_name"), longest=NAME_MAX),
        tags=read_tags(data.get("tags")),
        updated=read_time(data.get("updated")),
    )


def parse_block(data: Json) -> BlockDocument:
    """Parse a block; raises Unreadable, since no run must start with half of one."""
    data = _object(data, "a block")
    if not isinstance(data.get("data"), dict):
        raise Unreadable("a block's data is missing")
    return BlockDocument(
        id=needed_id(data, "id"),
        name=optional_text(data.get("name"), longest=NAME_MAX),
        type_slug=needed_text(_object(data.get("block_type"), "a block's type"), "slug"),
        data=data["data"],
    )


def parse_variable(data: Json) -> Variable:
    """Parse a variable, whose value may be any JSON, null too; raises Unreadable."""
    data = _object(data, "a variable")
    if "value" not in data:
        raise Unreadable("a variable's value is missing")
    return Variable(name=needed_text(data, "name"), value=data["value"])


def parse_worker_types(data: Json) -> dict[str, WorkerType]:
    """Parse a listing of worker types by package into types by name; those without a template are left out."""
    found: dict[str, WorkerType] = {}
    for package, types in _object(data, "the listing of worker types").items():
        for name, entry in _mapping(types).items():
            template = _mapping(entry).get("default_base_job_configuration")
            if isinstance(template, dict) and name not in found:
                description = optional_text(entry.get("description"))
                found[name] = WorkerType(type=name, package=package, template=template, description=description)
    return found


def _object(data: Json, what: str) -> dict[str, Json]:
    if not isinstance(data, dict):
        raise Unreadable(f"{what} is not an object")
    return data


def _mapping(value: Json) -> dict[str, Json]:
    """Return an object as it is, and an empty one for any other value."""
    return value if isinstance(value, dict) else {}
