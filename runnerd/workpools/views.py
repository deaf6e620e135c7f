"""What `runnerctl status` shows of the pools this host serves; the field names are a contract."""

from __future__ import annotations

from runnerd.model import Json
from runnerd.views import time_text
from runnerd.workpools.table import Served


def served_document(served: Served, *, running: int, worker: Json, problem: str | None) -> dict[str, Json]:
    """One pool. `worker` is Prefect's own, for types that are not ours; None otherwise."""
    settings, pool = served.settings, served.pool
    return {
        "name": served.name,
        "type": pool.type if pool is not None else settings.type,
        "service": served.service.value if served.service is not None else None,
        "state": served.state.value,
        "problem": problem,
        "file": settings.place.file,
        "line": settings.place.line,
        "running": running,
        "limit": settings.limit,
        "concurrency_limit": pool.concurrency_limit if pool is not None else None,
        "heartbeat_at": time_text(served.heartbeat_at),
        "queues": [
            {
                "name": queue.name,
                "priority": queue.priority,
                "paused": queue.is_paused,
                "concurrency_limit": queue.concurrency_limit,
            }
            for queue in served.queues
        ],
        "worker": worker,
    }
