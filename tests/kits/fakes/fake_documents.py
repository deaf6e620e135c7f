"""Documents of runs and deployments, as the control API shows them."""

from __future__ import annotations

from typing import Any

Json = Any
STAMP = "2026-08-20T10:00:00+00:00"
LATER = "2026-08-20T10:00:12+00:00"


def a_run(run_id: str, **changes: Json) -> Json:
    """A running run; `changes` are its keys."""
    return {
        "id": run_id,
        "name": f"run-{run_id[:4]}",
        "deployment": "nightly",
        "flow": "etl",
        "phase": "running",
        "intent": None,
        "pid": 4711,
        "pgid": 4711,
        "user": "etl",
        "start": "cold",
        "created_at": STAMP,
        "started_at": STAMP,
        "ended_at": None,
        "api_state": "RUNNING",
        "api_state_name": "Running",
        "exit": None,
        "memory_bytes": 50 * 2**20,
        "cpu_seconds": 1.5,
    } | changes


def ended(**changes: Json) -> Json:
    """The keys that make a run one that is over."""
    return {
        "phase": "done",
        "pid": None,
        "pgid": None,
        "ended_at": LATER,
        "api_state": "COMPLETED",
        "api_state_name": "Completed",
        "exit": {"code": 0, "signal": None, "oom": False, "words": "exited 0"},
        "memory_bytes": None,
        "cpu_seconds": 2.0,
    } | changes


def a_deployment(deployment_id: str, name: str, **changes: Json) -> Json:
    return {
        "id": deployment_id,
        "name": name,
        "flow": "etl",
        "file": "/etc/runnerd/conf.d/20-etl.yaml",
        "line": 2,
        "state": "ready",
        "problem": None,
        "next_run_at": LATER,
        "running": 0,
        "limit": 1,
    } | changes
