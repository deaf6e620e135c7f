"""Builds the JSON documents of work pools and queues; control/fields.py lists their fields."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from runnerd.core.exit_words import time_text
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun, WorkerSeen, WorkerType, WorkPool, WorkQueue


def pool_document(pool: WorkPool, *, served: bool) -> dict[str, Json]:
    """Return the short document of a pool; `served`: the configuration of this host names the pool."""
    return {
        "id": pool.id,
        "name": pool.name,
        "type": pool.type,
        "description": pool.description or None,
        "paused": pool.is_paused,
        "concurrency_limit": pool.concurrency_limit,
        "status": pool.status,
        "served": served,
    }


def whole_pool_document(
    pool: WorkPool, *, served: bool, queues: Sequence[WorkQueue], workers: Sequence[WorkerSeen]
) -> dict[str, Json]:
    """Return the document of a pool with its base job template, queues and workers."""
    return {
        **pool_document(pool, served=served),
        "created_at": time_text(pool.created),
        "updated_at": time_text(pool.updated),
        "base_job_template": dict(pool.base_job_template),
        "queues": [queue_document(queue, pool) for queue in queues],
        "workers": [worker_document(worker) for worker in workers],
    }


def queue_document(queue: WorkQueue, pool: WorkPool) -> dict[str, Json]:
    """Return the document of a queue of `pool`."""
    return {
        "id": queue.id,
        "name": queue.name,
        "pool": pool.name,
        "default": queue.id == pool.default_queue_id,
        "description": queue.description or None,
        "paused": queue.is_paused,
        "concurrency_limit": queue.concurrency_limit,
        "priority": queue.priority,
        "status": queue.status,
        "last_polled_at": time_text(queue.last_polled),
        "filter": None if queue.filter is None else dict(queue.filter),
    }


def worker_document(worker: WorkerSeen) -> dict[str, Json]:
    """Return the document of a worker that has sent heartbeats."""
    return {"name": worker.name, "status": worker.status, "last_heartbeat_at": time_text(worker.last_heartbeat)}


def type_document(worker_type: WorkerType) -> dict[str, Json]:
    """Return the short document of a worker type."""
    description = worker_type.description or None
    return {"type": worker_type.type, "package": worker_type.package, "description": description}


def offer_document(run: FlowRun, *, deployment: str | None, now: datetime, waiting: str | None) -> dict[str, Json]:
    """Return the document of a run that waits in a pool; `late`: the run was due before now.

    `waiting` is the pause or the limit that delays its delivery.
    """
    due = run.next_scheduled_start_time or run.expected_start_time
    return {
        "id": run.id,
        "name": run.name,
        "pool": run.pool,
        "queue": run.queue,
        "deployment": deployment,
        "deployment_id": run.deployment_id,
        "tags": list(run.tags),
        "due_at": time_text(due),
        "late": due is not None and due < now,
        "waiting": waiting,
        "api_state": run.state.type.value,
        "api_state_name": run.state.name,
    }
