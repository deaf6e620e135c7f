"""The rules of FakePrefect: which keys a body may have, and which transitions the servers allow."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Json = Any
OCCUPYING = {"PENDING", "RUNNING", "CANCELLING"}
TERMINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
_BOTH = {"name", "flow_id", "entrypoint", "path", "version", "description", "tags", "parameters", "pull_steps"}
_BOTH |= {"parameter_openapi_schema", "enforce_parameter_schema", "paused", "schedules", "job_variables"}
_BOTH |= {"work_pool_name", "work_queue_name", "storage_document_id", "infrastructure_document_id"}
_ONLY_CREATED_2 = {"name", "flow_id", "parameter_openapi_schema", "pull_steps"}
_RUN = {"state", "name", "parameters", "enforce_parameter_schema", "context", "infrastructure_document_id"}
_RUN |= {"empirical_policy", "tags", "idempotency_key", "parent_task_run_id", "work_queue_name", "job_variables"}
_STATE = {"type", "name", "message", "data", "state_details"}

ALLOWED_KEYS: dict[str, dict[int, set[str]]] = {
    "flow": {2: {"name", "tags"}, 3: {"name", "tags", "labels"}},
    "deployment": {
        2: _BOTH | {"schedule", "is_schedule_active", "infra_overrides", "manifest_path"},
        3: _BOTH
        | {"concurrency_limit", "concurrency_options", "global_concurrency_limit_id", "labels", "version_info"},
    },
    "deployment change": {
        2: _BOTH - _ONLY_CREATED_2 | {"schedule", "is_schedule_active", "infra_overrides", "manifest_path"},
        3: _BOTH - {"name", "flow_id"}
        | {"concurrency_limit", "concurrency_options", "global_concurrency_limit_id", "version_info"},
    },
    "create_run": {2: _RUN, 3: _RUN | {"labels"}},
    "set_state": {2: {"state", "force"}, 3: {"state", "force"}},
    "state": {2: _STATE | {"timestamp", "id"}, 3: _STATE},
}
_POOL = {"description", "is_paused", "concurrency_limit", "base_job_template"}
_QUEUE = {"name", "description", "is_paused", "concurrency_limit", "priority", "filter"}
_RUN_CHANGE = {"name", "flow_version", "parameters", "empirical_policy", "tags", "infrastructure_pid", "job_variables"}
POOL_KEYS: dict[str, dict[int, set[str]]] = {
    "pool": {2: _POOL | {"name", "type"}, 3: _POOL | {"name", "type", "storage_configuration"}},
    "pool change": {2: _POOL, 3: _POOL | {"storage_configuration"}},
    "queue": {2: _QUEUE, 3: _QUEUE},
    "queue change": {2: _QUEUE | {"last_polled"}, 3: _QUEUE | {"last_polled"}},
    "run change": {2: _RUN_CHANGE, 3: _RUN_CHANGE},
}
SCHEDULE_KEYS = {
    2: {"schedule", "active", "max_scheduled_runs", "max_active_runs", "catchup"},
    3: {"schedule", "active", "max_scheduled_runs", "parameters", "slug", "replaces"},
}
_RULE_KEYS = {
    "cron": {"cron", "timezone", "day_or"},
    "interval": {"interval", "anchor_date", "timezone"},
    "rrule": {"rrule", "timezone"},
}


class Refusal(Exception):
    """A 4xx and its body."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(status)
        self.status = status
        self.body = body

    @classmethod
    def invalid(cls, loc: list[Json], msg: str) -> Refusal:
        detail = [{"loc": loc, "msg": msg, "type": "value_error"}]
        return cls(422, {"exception_message": "Invalid request received.", "exception_detail": detail})

    @classmethod
    def extra(cls, loc: list[Json]) -> Refusal:
        return cls.invalid(loc, "Extra inputs are not permitted")


MISSING = Refusal(404, {"detail": "Not Found"})


def rule_of(body: Json) -> Json:
    """A schedule as it is stored."""
    for kind, keys in _RULE_KEYS.items():
        if kind not in body:
            continue
        if set(body) - keys:
            raise Refusal.extra(["body", "schedules", 0, "schedule"])
        if kind == "interval" and body["interval"] <= 0:
            raise Refusal.invalid(["body", "schedules", 0, "schedule", "interval"], "interval must be positive")
        return {"timezone": None, **body}
    raise Refusal.invalid(["body", "schedules", 0, "schedule"], "Field required")


def schedule_of(body: Json, deployment_id: str, major: int, *, keep: bool) -> Json:
    """A new schedule as it is stored."""
    _check_schedule(body, major)
    if body.get("active", True) is None:
        raise Refusal.invalid(["body", "schedules", 0, "active"], "Input should be a valid boolean")
    more = {"parameters": {}, "slug": None} if major == 3 else {"max_active_runs": None, "catchup": False}
    stored = {"active": True, "max_scheduled_runs": None, **more, **body}
    stored |= {"id": str(uuid.uuid4()), "deployment_id": deployment_id, "schedule": rule_of(body["schedule"])}
    if not keep:  # the real ones lose these keys of an upsert's schedules, both of them
        stored["max_scheduled_runs"] = None
        stored |= {"max_active_runs": None, "catchup": False} if major == 2 else {}
    return stored


def change_schedule(stored: Json, body: Json, major: int) -> None:
    """Change a stored schedule: null changes nothing, and 3.x takes absent parameters for none."""
    _check_schedule(body, major)
    changes = {key: value for key, value in body.items() if value is not None}
    if "schedule" in changes:
        changes["schedule"] = rule_of(changes["schedule"])
    stored |= {"parameters": {}} if major == 3 else {}
    stored |= changes


def _check_schedule(body: Json, major: int) -> None:
    unknown = set(body) - SCHEDULE_KEYS[major]
    if unknown:
        raise Refusal.extra(["body", "schedules", 0, *sorted(unknown)])


@dataclass
class Ruling:
    """What becomes of a proposal; `enter` is the state that is recorded, None when the old one stays."""

    status: str
    details: Json = field(default_factory=dict)
    enter: Json = None


def _ruling(status: str, reason: str | None = None, *, enter: Json = None, **more: Json) -> Ruling:
    return Ruling(status, {"type": f"{status.lower()}_details", "reason": reason, **more}, enter)


def transition(run: Json, proposed: Json, *, force: bool, major: int, now: datetime) -> Ruling:
    """Apply the servers' rules, in their order."""
    current = run["state"]
    transition_id = (proposed.get("state_details") or {}).get("transition_id")
    if force:
        return _ruling("ACCEPT", enter=proposed)
    if transition_id is not None and transition_id == current["state_details"]["transition_id"]:
        return _ruling("REJECT", "This run has already made this state transition.")
    special = _SPECIAL.get((current["type"], proposed["type"]))
    if special is not None:
        return special(proposed, major)
    if proposed["type"] == "PENDING" and current["type"] in ("PENDING", "RUNNING"):
        return _pending(current, proposed, major)
    if proposed["type"] in ("CRASHED", "CANCELLING") and current["type"] in TERMINAL:
        return _ruling("ABORT", f"This run is already in a terminal {current['type']} state.")
    if current["type"] == "CANCELLING" and proposed["type"] != "CANCELLED":
        return _ruling("REJECT", "Cannot transition flows that are cancelling to a non-cancelled state.")
    if (current["type"], proposed["type"]) == ("RUNNING", "FAILED") and run["run_count"] <= _retries(run):
        return _retry_in_process(run, now)
    if proposed["type"] == "RUNNING" and (left_s := _early_s(current, run, now)) > 0:
        return _ruling("WAIT", "Scheduled time is in the future", delay_seconds=left_s)
    return _ruling("ACCEPT", enter=proposed)


def _retries(run: Json) -> int:
    return run["empirical_policy"].get("retries") or 0


def _retry_in_process(run: Json, now: datetime) -> Ruling:
    policy = run["empirical_policy"]
    policy["retry_type"] = "in_process"
    at = now + timedelta(seconds=policy.get("retry_delay") or 0)
    retry = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": {"scheduled_time": at.isoformat()}}
    return _ruling("REJECT", "Retrying", enter=retry)


def no_slot(strategy: str, *, now: datetime) -> Ruling:
    """What a deployment's concurrency limit does with one run too many."""
    if strategy == "CANCEL_NEW":
        return _ruling("REJECT", "Deployment concurrency limit reached.", enter={"type": "CANCELLED"})
    at = {"scheduled_time": (now + timedelta(seconds=30)).isoformat()}
    later = {"type": "SCHEDULED", "name": "AwaitingConcurrencySlot", "state_details": at}
    return _ruling("REJECT", "Deployment concurrency limit reached.", enter=later)


def completed_to_pending(run: Json, proposed: Json, status: str | None) -> Ruling | None:
    """What servers since 3.9.4 do with a claim of a run that has completed; `status` is None for older ones.

    Not measured: ABORT as for the other states that cannot become Pending, REJECT as 3.9.1 for a persisted result.
    """
    if status is None or (run["state"]["type"], proposed["type"]) != ("COMPLETED", "PENDING"):
        return None
    words = "This run is in a COMPLETED state and cannot transition to a PENDING state."
    return _ruling(status, words if status == "ABORT" else "Run is already COMPLETED.")


def completed_to_scheduled(run: Json, proposed: Json) -> Ruling | None:
    """What both majors do with a Completed run whose result is persisted."""
    if (run["state"]["type"], proposed["type"]) != ("COMPLETED", "SCHEDULED"):
        return None
    return _ruling("REJECT", "Run is already COMPLETED.")


def _pending(current: Json, proposed: Json, major: int) -> Ruling:
    submitting = proposed.get("name") not in (None, "Pending", current["name"])
    if major == 3 and current["type"] == "PENDING" and submitting:
        return _ruling("ACCEPT", enter=proposed)
    words = f"This run is in a {current['type']} state and cannot transition to a PENDING state."
    return _ruling("ABORT", words)


def _early_s(current: Json, run: Json, now: datetime) -> int:
    due = run["expected_start_time"] if current["type"] == "PENDING" else current["state_details"]["scheduled_time"]
    if due is None:
        return 0
    left = datetime.fromisoformat(due).astimezone(UTC) - now
    return int(left / timedelta(seconds=1) + 0.999)


def _cancel_scheduled(proposed: Json, major: int) -> Ruling:
    cancelled = {"type": "CANCELLED", "name": "Cancelled"}
    return _ruling("REJECT", "Scheduled flow run has no infrastructure to terminate.", enter=cancelled)


def _cancelled_to_pending(proposed: Json, major: int) -> Ruling:
    return _ruling("REJECT" if major == 2 else "ABORT", "This run was cancelled.")


def _cancelled_to_scheduled(proposed: Json, major: int) -> Ruling:
    if major == 3:
        return _ruling("ACCEPT", enter=proposed)
    return _ruling("REJECT", "Cannot transition flows that are cancelling to a state other than Cancelled.")


def _cancel_paused(proposed: Json, major: int) -> Ruling:
    if major == 3:
        return _ruling("ACCEPT", enter=proposed)
    return _ruling("REJECT", "This run cannot transition to the CANCELLING state from the PAUSED state.")


_SPECIAL = {
    ("SCHEDULED", "CANCELLING"): _cancel_scheduled,
    ("CANCELLED", "PENDING"): _cancelled_to_pending,
    ("CANCELLED", "SCHEDULED"): _cancelled_to_scheduled,
    ("PAUSED", "CANCELLING"): _cancel_paused,
}
