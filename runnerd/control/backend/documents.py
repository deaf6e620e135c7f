"""Builds the JSON documents of the control API; control/fields.py lists their fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from runnerd.core.exit_words import time_text
from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.prefect import ApiCondition, ApiHealth, FlowRun
from runnerd.core.settings import InvalidDeployment
from runnerd.deployments.registry import Entry, EntryState
from runnerd.deployments.sources.documents import run_source_document, source_document
from runnerd.deployments.sources.table import PulledSource
from runnerd.output.attempts import AttemptOutput
from runnerd.polling.event_stream import EventStream
from runnerd.spawner.child.users import AllowedUsers
from runnerd.system.paths import Paths
from runnerd.system.usage import Usage


def run_document(record: RunRecord, usage: Usage | None = None, *, now: datetime) -> Json:
    """Return the document of a claimed run; `usage` is what its processes use now."""
    ended = record.exit
    exit_document = None
    if record.ended_at is not None:
        exit_document = {
            "code": ended.code if ended else None,
            "signal": ended.signal if ended else None,
            "oom": ended.oom if ended else False,
            "words": record.words,
        }
    cpu_s = usage.cpu_s if usage else (ended.cpu_s if ended else None)
    return {
        "id": record.id,
        "here": True,
        "name": record.name,
        "deployment": record.deployment or None,  # empty where a run that was requested by its id has none
        "flow": record.flow,
        "kind": _kind(record.command is not None),
        "phase": record.phase.value,
        "intent": record.intent.value if record.intent else None,
        "pid": record.identity.pid if record.identity else None,
        "pgid": record.pgid,
        "user": record.user,
        "start": record.start,
        "start_problem": record.start_problem,
        "attempt": record.attempt,
        "tags": list(record.tags),
        "pool": record.pool,
        "queue": record.queue,
        "process_name": record.process_name,
        "labels": dict(record.labels),
        "source": run_source_document(record.source),
        "entrypoint": record.guest.entrypoint if record.guest else None,
        "output_removed": record.output_removed,
        "waiting": record.waiting or record.step,
        "run_created_at": time_text(record.run_created_at),
        "created_at": time_text(record.created_at),
        "due_at": time_text(record.due_at),
        "held": record.is_held(now),
        "ready_seconds": record.ready_s,
        "started_at": time_text(record.started_at),
        "ended_at": time_text(record.ended_at),
        "api_state": record.api_state.value if record.api_state else None,
        "api_state_name": record.api_state_name,
        "api_state_message": record.api_state_message,
        "exit": exit_document,
        "memory_bytes": usage.memory_bytes if usage else (ended.max_rss_bytes if ended else None),
        "cpu_seconds": cpu_s,
    }


def _kind(is_command: bool) -> str:
    return "command" if is_command else "flow"


def offered_document(run: FlowRun, entry: Entry | None, *, waiting: str | None = None) -> Json:
    """Return the document of a flow run that is not claimed; `waiting` is the limit that delays the claim."""
    document = {
        "id": run.id,
        "here": True,
        "name": run.name,
        "deployment": entry.deployment.name if entry else None,
        "flow": entry.flow if entry else None,
        "kind": _kind(entry.deployment.command is not None) if entry else "flow" if run.pool else None,
        "tags": list(run.tags),
        "pool": run.pool,
        "queue": run.queue,
        "run_created_at": time_text(run.created),
        "created_at": time_text(run.expected_start_time),
        "api_state": run.state.type.value,
        "api_state_name": run.state.name,
        "waiting": waiting,
        "held": False,
    }
    absent = (
        "phase intent pid pgid user start start_problem process_name labels source entrypoint output_removed due_at"
        " ready_seconds started_at ended_at api_state_message exit memory_bytes cpu_seconds".split()
    )
    return {**dict.fromkeys(absent), **document}


def attempt_document(output: AttemptOutput, *, shown: bool) -> Json:
    """Return the document of the output of one attempt; `shown`: it is what is read where no attempt is named."""
    return {"attempt": output.attempt, "bytes": output.stored_bytes, "cut": output.cut, "shown": shown}


def deployment_document(entry: Entry, *, running: int, held: int, source: PulledSource | None = None) -> Json:
    """Return the document of a valid deployment.

    `running` is the number of its live runs, `held` that of those among them which wait until they are due.
    """
    deployment = entry.deployment
    not_pulled = source.problem if source is not None else None
    return {
        "id": entry.deployment_id,
        "name": deployment.name,
        "flow": entry.flow,
        "file": deployment.place.file,
        "line": deployment.place.line,
        "state": entry.state.value,
        "problem": entry.problem or next((flaw.message for flaw in entry.flaws), None) or not_pulled,
        "next_run_at": None if entry.paused else time_text(entry.next_run_at),
        "running": running,
        "held": held,
        "limit": entry.limit,
        "entrypoint": deployment.entrypoint or None,
        "kind": _kind(deployment.command is not None),
        "command": deployment.command.line if deployment.command is not None else None,
        "tags": list(deployment.tags),
        "pool": deployment.work_pool,
        "source": source_document(deployment, source),
    }


def invalid_document(one: InvalidDeployment) -> Json:
    """Return the document of a deployment whose section of the configuration is invalid."""
    return {
        "id": None,
        "name": one.name,
        "flow": None,
        "file": one.place.file,
        "line": one.place.line,
        "state": EntryState.INVALID.value,
        "problem": one.problem,
        "next_run_at": None,
        "running": 0,
        "held": 0,
        "limit": None,
        "entrypoint": None,
        "kind": None,
        "command": None,
        "tags": [],
        "pool": None,
        "source": None,
    }


def service_document(paths: Paths, environ: Mapping[str, str], users: AllowedUsers | None) -> Json:
    """Return what the daemon has besides its files: `runnerctl config check` judges files by it.

    `users`: as whom the spawner starts flows, None where that is unknown.
    """
    return {
        "directory": paths.config,
        "api_url": environ.get("PREFECT_API_URL"),
        "flow_user": environ.get("RUNNERD_FLOW_USER") or None,
        "users": users.to_wire() if users is not None else None,
    }


def api_document(url: str, health: ApiHealth) -> Json:
    """Return the document of the connection to Prefect's API.

    Scripts know three states, and to them an API in maintenance is one that answers with errors.
    """
    in_maintenance = health.condition is ApiCondition.MAINTENANCE
    return {
        "url": url,
        "state": ApiCondition.DEGRADED.value if in_maintenance else health.condition.value,
        "maintenance": in_maintenance,
        "since": time_text(health.since),
        "detail": health.detail,
    }


def stream_document(stream: EventStream) -> Json:
    """Return the document of the subscription to the API's events."""
    return {
        "state": stream.condition.value,
        "since": time_text(stream.since),
        "detail": stream.detail,
        "events": stream.events,
    }


def limits_document(records: Iterable[RunRecord], *, runs: int, tags: dict[str, int]) -> Json:
    """Return each limit with its use: the number of runs that hold a slot, of all and of each tag."""
    used = [record for record in records if record.holds_slot]
    by_tag = {
        tag: {"used": sum(tag in record.tags for record in used), "max": most} for tag, most in sorted(tags.items())
    }
    return {"runs": {"used": len(used), "max": runs}, "tags": by_tag}
