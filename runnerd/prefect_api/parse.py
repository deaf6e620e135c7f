"""Parses Prefect's JSON into the values of core/prefect.py.

Nothing is guessed: unexpected JSON raises Unreadable, and in a list the other items are still parsed.
Times end in `Z` (3.x) or `+00:00` (2.20), with any number of fractional digits, and are returned in UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from runnerd.core.place import Json
from runnerd.core.prefect import ApiState, DeploymentInfo, FlowRun, StateType

T = TypeVar("T")
_AWAITING_RETRY = "AwaitingRetry"  # both majors


class Unreadable(ValueError):
    """Says which part of the JSON is not as Prefect documents it."""


def parse_time(text: Json) -> datetime | None:
    """Parse an ISO 8601 time into UTC; None when it is absent or invalid."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def parse_state(data: Json) -> ApiState:
    """Parse a state; raises Unreadable, also for an unknown type, since every decision depends on the type."""
    if not isinstance(data, dict):
        raise Unreadable("a state is missing")
    kind = data.get("type")
    if not isinstance(kind, str) or kind not in StateType.__members__:
        raise Unreadable(f"unknown state type {kind!r}")
    details = data.get("state_details")
    details = details if isinstance(details, dict) else {}
    return ApiState(
        type=StateType(kind),
        name=optional_text(data.get("name")) or kind.capitalize(),
        message=optional_text(data.get("message")),
        transition_id=optional_text(details.get("transition_id")),
        scheduled_time=parse_time(details.get("scheduled_time")),
        lease_id=optional_text(details.get("deployment_concurrency_lease_id")),
        needs_process=kind == StateType.PAUSED and details.get("pause_reschedule") is not True,
    )


def parse_flow_run(data: Json) -> FlowRun:
    """Parse a flow run; raises Unreadable."""
    if not isinstance(data, dict):
        raise Unreadable("a flow run is not an object")
    parameters, job_variables = data.get("parameters"), data.get("job_variables")
    run_count, policy = data.get("run_count"), data.get("empirical_policy")
    run = FlowRun(
        id=needed_text(data, "id"),
        name=optional_text(data.get("name")) or "",
        flow_id=needed_text(data, "flow_id"),
        deployment_id=optional_text(data.get("deployment_id")),
        state=parse_state(data.get("state")),
        next_scheduled_start_time=parse_time(data.get("next_scheduled_start_time")),
        expected_start_time=parse_time(data.get("expected_start_time")),
        parameters=parameters if isinstance(parameters, dict) else {},
        tags=_texts(data.get("tags")),
        auto_scheduled=data.get("auto_scheduled") is True,
        run_count=run_count if isinstance(run_count, int) else 0,
        job_variables=job_variables if isinstance(job_variables, dict) else {},
        policy=policy if isinstance(policy, dict) else {},
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
        id=needed_text(data, "id"),
        name=needed_text(data, "name"),
        flow_id=needed_text(data, "flow_id"),
        paused=data.get("paused") is True,
    )


def parse_each(data: Json, parse: Callable[[Json], T]) -> tuple[list[T], list[str]]:
    """Parse the items of a list; return them, and the errors of unreadable ones. Raises Unreadable if not a list."""
    if not isinstance(data, list):
        raise Unreadable("a list is missing")
    good: list[T] = []
    bad: list[str] = []
    for item in data:
        try:
            good.append(parse(item))
        except Unreadable as error:
            bad.append(str(error))
    return good, bad


def parse_id(data: Json) -> str:
    """Parse the id of an object of any kind; raises Unreadable."""
    if not isinstance(data, dict):
        raise Unreadable("an object is missing")
    return needed_text(data, "id")


def needed_text(data: dict[str, Json], key: str) -> str:
    """Return the text at this key; raises Unreadable when there is none."""
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise Unreadable(f"{key} is missing")
    return value


def optional_text(value: Json) -> str | None:
    """Return a text as it is, and None for any other value."""
    return value if isinstance(value, str) else None


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
