"""Parses Prefect's JSON into the values of core/prefect.py.

Nothing is guessed: unexpected JSON raises Unreadable, and in a list the other items are still parsed.
A time that decides nothing, such as that of a state, is None where it is invalid: the run itself is still readable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from runnerd.core.json_words import show_value
from runnerd.core.place import Json
from runnerd.core.prefect import ApiState, DeploymentInfo, FlowRun, StateType
from runnerd.prefect_api.body import DEPTH_MAX, TooDeep, id_of
from runnerd.prefect_api.validation_words import shorten
from runnerd.prefect_api.values import (
    NAME_MAX,
    ODD,
    Unreadable,
    is_uuid,
    needed_id,
    needed_text,
    optional_id,
    optional_text,
    read_due,
    read_time,
    read_whole,
)

ITEMS_MAX = 10_000  # of one list; most lists have at most 200, a run's states may be more
TAGS_MAX = 1000  # of one run

T = TypeVar("T")
_AWAITING_RETRY = "AwaitingRetry"  # both majors


def parse_state(data: Json) -> ApiState:
    """Parse a state; raises Unreadable, also for an unknown type, since every decision depends on the type."""
    if not isinstance(data, dict):
        raise Unreadable("a state is missing")
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in StateType.__members__:
        raise Unreadable(f"unknown state type {show_value(kind)}")
    details = data.get("state_details")
    details = details if isinstance(details, dict) else {}
    return ApiState(
        type=StateType(kind),
        name=optional_text(data.get("name"), longest=NAME_MAX) or kind.capitalize(),
        message=optional_text(data.get("message")),
        transition_id=optional_text(details.get("transition_id")),
        scheduled_time=read_time(details.get("scheduled_time")),
        lease_id=optional_text(details.get("deployment_concurrency_lease_id")),
        since=read_time(data.get("timestamp")),
        pause_until=read_time(details.get("pause_timeout")),
        needs_process=kind == StateType.PAUSED and details.get("pause_reschedule") is not True,
    )


def parse_flow_run(data: Json) -> FlowRun:
    """Parse a flow run; raises Unreadable."""
    if not isinstance(data, dict):
        raise Unreadable("a flow run is not an object")
    parameters, job_variables = data.get("parameters"), data.get("job_variables")
    policy = data.get("empirical_policy")
    run = FlowRun(
        id=needed_id(data, "id"),
        name=optional_text(data.get("name"), longest=NAME_MAX) or "",
        flow_id=needed_id(data, "flow_id"),
        deployment_id=optional_id(data, "deployment_id"),
        state=parse_state(data.get("state")),
        next_scheduled_start_time=read_time(data.get("next_scheduled_start_time")),
        expected_start_time=read_time(data.get("expected_start_time")),
        parameters=parameters if isinstance(parameters, dict) else {},
        tags=read_tags(data.get("tags")),
        auto_scheduled=data.get("auto_scheduled") is True,
        run_count=read_whole(data.get("run_count")) or 0,
        job_variables=job_variables if isinstance(job_variables, dict) else {},
        policy=policy if isinstance(policy, dict) else {},
        created=read_time(data.get("created")),
        parent_task_run_id=optional_text(data.get("parent_task_run_id")),
    )
    # By its name too: the policy of a run that has been retried in its process stays so while the run is suspended
    # and resumed, and then any process may go on with it.
    if run.retries_in_process and run.state.type is StateType.SCHEDULED and run.state.name == _AWAITING_RETRY:
        return replace(run, state=replace(run.state, needs_process=True))
    return run


def parse_deployment(data: Json) -> DeploymentInfo:
    """Parse a deployment; raises Unreadable."""
    if not isinstance(data, dict):
        raise Unreadable("a deployment is not an object")
    return DeploymentInfo(
        id=needed_id(data, "id"),
        name=needed_text(data, "name"),
        flow_id=needed_id(data, "flow_id"),
        paused=data.get("paused") is True,
    )


def parse_offer(data: Json) -> FlowRun:
    """Parse a flow run that is to be started at its time; raises Unreadable, also when that is no time."""
    run = parse_flow_run(data)
    for key in ("next_scheduled_start_time", "expected_start_time"):
        read_due(data, key)
    return run


def parse_each(data: Json, parse: Callable[[Json], T]) -> tuple[list[T], list[str]]:
    """Parse the items of a list; return them, and the errors of unreadable ones. Raises Unreadable if not a list."""
    if not isinstance(data, list):
        raise Unreadable("a list is missing")
    if len(data) > ITEMS_MAX:
        raise Unreadable(f"a list has {len(data)} items, more than the {ITEMS_MAX} that any answer may have")
    good: list[T] = []
    bad: list[str] = []
    for item in data:
        try:
            good.append(parse(item))
        except ODD as error:
            bad.append(_odd_words(item, error))
    return good, bad


def _odd_words(item: Json, error: Exception) -> str:
    """Name an item, as far as it says who it is, and what is odd about it."""
    found = id_of(item)
    if isinstance(item, TooDeep):
        why = f"it is more than {DEPTH_MAX} levels deep"
    else:
        why = str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {error}"
    return f"{found}: {why}" if isinstance(found, str) and is_uuid(found) else why


def parse_id(data: Json) -> str:
    """Parse the id of an object of any kind; raises Unreadable."""
    if not isinstance(data, dict):
        raise Unreadable("an object is missing")
    return needed_id(data, "id")


def read_tags(value: Json) -> tuple[str, ...]:
    """Read the tags of a run or deployment, without what is no text, and the first of very many."""
    found = value if isinstance(value, list) else []
    return tuple(item for item in found[:TAGS_MAX] if isinstance(item, str) and len(item) <= NAME_MAX)


def parse_version(data: Json) -> str:
    """Read the version of the server, in at most 100 characters."""
    if not isinstance(data, str):
        raise Unreadable("it is not a string")
    return shorten(data, 100)
