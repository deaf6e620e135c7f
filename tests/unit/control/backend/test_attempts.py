"""Backend of runs: the output of a run that has had several attempts here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.engine import running
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.host import PEER, Daemon, daemon


async def end_first_attempt(one: Daemon) -> str:
    """A run whose first attempt has ended, and which Prefect retries here when it is offered again; its id."""
    run_id = await one.start()
    one.engine.prefect.set_state(run_id, "SCHEDULED", "AwaitingRetry")
    one.spawner.exit(run_id)
    await one.engine.until_done(run_id)
    return run_id


async def test_the_output_of_each_attempt(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = await end_first_attempt(one)
        runs = one.host.runs
        assert runs.output(run_id) == f"/var/log/{run_id}.1.log"
        one.spawner.down = True  # the second attempt is claimed, and cannot start yet
        one.spawner.lose()
        assert one.engine.offer(run_id) == (run_id,)
        assert runs.output(run_id) is None, "who follows the run waits for its second attempt"
        assert runs.output(run_id, attempt=1) == f"/var/log/{run_id}.1.log"
        one.spawner.down = False
        await one.engine.until(lambda: running(one.engine, run_id))
        assert runs.output(run_id) == f"/var/log/{run_id}.2.log"
        assert runs.output(run_id, attempt=1) == f"/var/log/{run_id}.1.log"
        assert await runs.attempts("nobody") == []


@pytest.mark.parametrize("major", [2, 3])
async def test_a_run_cancelled_before_its_next_attempt_has_the_output_of_the_one_before(
    tmp_path: Path, major: int
) -> None:
    async with daemon(tmp_path, prefect=FakePrefect(major=major)) as one:
        run_id = await end_first_attempt(one)
        offered = await one.engine.api.read_run(run_id)
        assert offered is not None
        one.engine.poller.put_on_offer(offered)
        (document,) = await one.host.runs.cancel([run_id], now=False, peer=PEER)
        assert (document["phase"], document["attempt"]) == ("done", 2)
        assert one.engine.prefect.state_of(run_id) == "CANCELLED"
        assert one.host.runs.output(run_id) == f"/var/log/{run_id}.1.log"
