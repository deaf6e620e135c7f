"""Makes the bodies of requests for 2.20 and 3.x, key by key.

3.x refuses a body with an unknown key (422), and 2.20 refuses keys of later versions, so every body is exact.
Optional keys are sent as null instead of left out: a key that an administrator removes from the file has to be
removed on the server as well. Pure.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from runnerd.core.place import Json, Problem
from runnerd.core.prefect import Inspection, StateType, Verdict
from runnerd.core.settings import Deployment, Schedule
from runnerd.prefect_api.answers import DeploymentBody, ServerInfo
from runnerd.prefect_api.source_steps import pull_steps_of

OLDEST_2 = (2, 14, 21)  # older servers may ignore transition_id, without which a claim cannot be repeated
# Older servers refuse max_scheduled_runs, and before 2.17 job_variables, schedules or paused as well.
DEPLOYMENTS_SINCE, DEPLOYMENTS_SINCE_TEXT = (2, 19, 0), "2.19"
RUN_LABELS_SINCE = (3, 2, 0)
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?")


def version_of(text: str) -> tuple[int, int, int] | None:
    """Parse a version of Prefect into numbers; None when it does not start with two numbers."""
    found = _VERSION.match(text)
    if found is None:
        return None
    major, minor, patch = (int(part or 0) for part in found.groups())
    return major, minor, patch


def server_info(version: str) -> ServerInfo:
    """Decide whether and how runnerd works with a version from `/admin/version`."""
    numbers = version_of(version)
    if numbers is None:
        return ServerInfo(version=version, major=3, supported=False, why=f"{version!r} is not a version of Prefect")
    if numbers < OLDEST_2:
        why = f"Prefect {version} is too old: before 2.14.21 the API does not show whose claim won"
        return ServerInfo(version=version, major=2, supported=False, why=why)
    if numbers[0] > 3:
        why = f"Prefect {version} is newer than this runnerd, which works with 2.20 and 3.x"
        return ServerInfo(version=version, major=3, supported=False, why=why)
    return ServerInfo(version=version, major=numbers[0])


def is_before(server: ServerInfo, version: tuple[int, int, int]) -> bool:
    """Whether the server is older than `version`; Prefect Cloud is not."""
    numbers = version_of(server.version)
    return numbers is not None and numbers < version


def why_no_deployments(server: ServerInfo) -> str | None:
    """Say why this server cannot have the deployments of conf.d; None if it can."""
    if not is_before(server, DEPLOYMENTS_SINCE):
        return None
    return (
        f"Prefect {server.version} serves work pools only: deployments of conf.d need {DEPLOYMENTS_SINCE_TEXT} or newer"
    )


def state_body(run_id: str, verdict: Verdict, transition_id: str, *, force: bool = False) -> Json:
    """Make the body that proposes a state. The server's rules are the last guard of a run's state, so who sets `force`
    has a reason.

    A claim's state is named Pending: 2.20 aborts the sub-state "Submitting" of 3.x.
    """
    details = {"flow_run_id": run_id, "transition_id": transition_id}
    if verdict.type is StateType.SCHEDULED and verdict.scheduled_time is not None:
        details["scheduled_time"] = verdict.scheduled_time.isoformat()
    name = verdict.name or verdict.type.value.capitalize()
    state = {"type": verdict.type.value, "name": name, "message": verdict.message, "state_details": details}
    return {"state": state, "force": force}


def deployment_body(deployment: Deployment, inspection: Inspection, *, major: int) -> DeploymentBody | Problem:
    """Make the deployment's body for a server of this major; a Problem if that server lacks a feature it needs."""
    if major < 3 and any(one.slug is not None or one.parameters is not None for one in deployment.schedules):
        words = "a schedule with its own slug or parameters needs a Prefect 3 server; remove these keys"
        return Problem(message=words, place=deployment.place, deployment=deployment.name)
    if major < 3 and any(trigger["schedule_after"] for trigger in deployment.triggers):
        words = "a trigger with schedule_after needs a Prefect 3 server; remove this key"
        return Problem(message=words, place=deployment.place, deployment=deployment.name)
    body: dict[str, Json] = {
        "name": deployment.name,
        "entrypoint": deployment.entrypoint or None,
        "version": deployment.version or inspection.version,
        "description": deployment.description or inspection.description,
        "tags": list(deployment.tags),
        "parameters": dict(deployment.parameters),
        "parameter_openapi_schema": dict(inspection.parameter_schema),
        "enforce_parameter_schema": deployment.enforce_parameter_schema,
        "paused": deployment.paused,
        "schedules": schedule_bodies(deployment, major=major),
        **_where(deployment, major),
    }
    if major >= 3:
        body["concurrency_limit"] = deployment.concurrency_limit
        body["concurrency_options"] = _concurrency_options(deployment)
    return DeploymentBody(flow_name=inspection.flow_name, json=body)


def _where(deployment: Deployment, major: int) -> dict[str, Json]:
    """Say where the code is and who starts its runs: this host, or the workers of a pool."""
    directory = deployment.run.working_directory
    steps: list[Json] = [{"prefect.deployments.steps.set_working_directory": {"directory": directory}}]
    if deployment.command is not None:
        steps = []  # nobody else can run it
    elif deployment.source is not None and deployment.source.is_pulled:
        steps = list(pull_steps_of(deployment.source, major=major))
    elif deployment.pull_steps is not None:
        steps = list(deployment.pull_steps)
    is_here = deployment.work_pool is None and deployment.tree is None and not deployment.runs_pull_steps
    return {
        "path": directory if is_here else None,
        # runnerd starts flows with PREFECT__FLOW_ENTRYPOINT in their directory and never runs this step. It is for
        # others: without it, `prefect flow-run execute` would copy the whole directory to the current one.
        "pull_steps": steps,
        "work_pool_name": deployment.work_pool,
        "work_queue_name": deployment.work_queue,
        "job_variables": dict(deployment.job_variables),
    }


def _concurrency_options(deployment: Deployment) -> Json:
    """Null for a plain number; without the grace period that nobody stated, a key that older servers do not know."""
    if deployment.collision_strategy is None and deployment.collision_grace_s is None:
        return None
    options: dict[str, Json] = {"collision_strategy": deployment.collision_strategy or "ENQUEUE"}
    if deployment.collision_grace_s is not None:
        options["grace_period_seconds"] = deployment.collision_grace_s
    return options


def deployment_fingerprint(body: DeploymentBody, url: str) -> str:
    """Hash a deployment and its server's URL; the order of keys has no effect."""
    text = json.dumps([url, body.flow_name, body.json], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def schedule_bodies(deployment: Deployment, *, major: int) -> list[Json]:
    """The schedules for a server of this major; null is what the files do not state."""
    return [_schedule_body(schedule, major) for schedule in deployment.schedules]


def _schedule_body(schedule: Schedule, major: int) -> Json:
    body: dict[str, Json] = {
        "schedule": _rule_body(schedule),
        "active": schedule.active,
        "max_scheduled_runs": schedule.max_scheduled_runs,
    }
    if major >= 3:
        body["slug"] = schedule.slug
        body["parameters"] = dict(schedule.parameters) if schedule.parameters is not None else None
    return body


def _rule_body(schedule: Schedule) -> Json:
    if schedule.cron is not None:
        rule: dict[str, Json] = {"cron": schedule.cron, "day_or": schedule.day_or}
    elif schedule.rrule is not None:
        rule = {"rrule": schedule.rrule}
    else:
        rule = {"interval": schedule.interval_s, "anchor_date": schedule.anchor_date or _anchor(schedule)}
    if schedule.timezone is not None:
        rule["timezone"] = schedule.timezone
    return rule


def _anchor(schedule: Schedule) -> str:
    """Make the anchor of an interval for which the file has none: midnight of a fixed day in the schedule's timezone.

    The server's default is the moment of each upsert, so that every change of the file would shift the schedule.
    """
    try:
        zone = ZoneInfo(schedule.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):  # no tzdata on this host; the server checks the name
        zone = None
    moment = datetime(2020, 1, 1, tzinfo=zone) if zone else None
    return moment.isoformat() if moment else "2020-01-01T00:00:00+00:00"
