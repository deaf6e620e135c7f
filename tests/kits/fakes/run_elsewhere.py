"""A run that a FakeHost does not have."""

from __future__ import annotations

from typing import Any

from runnerd.control.contract import RunElsewhere
from runnerd.core.prefect import ApiState, FlowRun, StateType
from tests.kits.fakes.fake_documents import a_run

Json = Any


def run_elsewhere(run_id: str, *, kept: str | None = None, **changes: Json) -> RunElsewhere:
    """A run named far that Prefect has and the host does not have."""
    its = {"name": "far", "phase": None, "here": False, "waiting": "work pool etl is paused", "pool": None}
    absent = dict.fromkeys(("pid", "pgid", "user", "start", "started_at", "memory_bytes", "cpu_seconds"))
    state = ApiState(type=StateType.SCHEDULED, name="Scheduled")
    return RunElsewhere(
        document=a_run(run_id, **its, **absent, api_state="SCHEDULED", api_state_name="Scheduled") | changes,
        run=FlowRun(id=run_id, name="far", flow_id="f-1", deployment_id=None, state=state),
        kept=kept,
    )
