"""A server's answers about work pools."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.kits.nouns import an_id

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
POOL = {"id": an_id("p"), "name": "etl", "type": "process"}
OFFERED = {
    "work_pool_id": an_id("p"),
    "work_queue_id": an_id("q"),
    "flow_run": {
        "id": an_id("r"),
        "flow_id": an_id("f"),
        "state": None,
        "state_type": "SCHEDULED",
        "state_name": "Late",
    },
}
BLOCK = {"id": an_id("b"), "name": "x", "data": {"a": 1}, "block_type": {"slug": "process"}}
