"""A server's answers about work pools."""

from __future__ import annotations

from datetime import UTC, datetime

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
POOL = {"id": "p", "name": "etl", "type": "process"}
OFFERED = {
    "work_pool_id": "p",
    "work_queue_id": "q",
    "flow_run": {"id": "r", "flow_id": "f", "state": None, "state_type": "SCHEDULED", "state_name": "Late"},
}
BLOCK = {"id": "b", "name": "x", "data": {"a": 1}, "block_type": {"slug": "process"}}
