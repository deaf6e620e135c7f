"""reporting.py: the words of a run that its cancel did not end."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.core.prefect import StateType
from tests.kits.engine import fake_engine, start


@pytest.mark.parametrize(
    ("state", "words"),
    [("COMPLETED", "completed before the cancel ended it; exited 0"), ("FAILED", "cancelled; exited 0")],
)
async def test_a_run_that_completes_all_the_same_is_not_called_cancelled(
    tmp_path: Path, state: str, words: str
) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        spawner.stubborn = True
        run_id = await start(engine)
        engine.supervisor.cancel([run_id], announce=False)
        await engine.until(lambda: engine.phase(run_id) == "stopping")
        engine.prefect.set_state(run_id, state)
        spawner.exit(run_id)
        record = await engine.until_done(run_id)
        assert (record.api_state, record.words) == (StateType(state), words)
