"""The engine of a daemon, which is killed at a chosen write to its journal.

Reads one JSON document a line: {"url", "socket", "home", "kill_at", "before"}; lives that life in a forked child and
says how it ended: 0 when every run is done, -9 when it was killed. Forked because importing takes longer than living.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from runnerd.core.machine import RunRecord
from runnerd.deployments.registry import Entry
from runnerd.journal.journal import Journal
from runnerd.runs.adopting import adopt
from tests.kits.engine import Engine, serving
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import LogLines, a_deployment, log_to
from tests.kits.run_life import life_engine, now


class DyingJournal(Journal):
    """Kills this process at its write number `kill_at`, from 1: `before` it is on disk or right after."""

    kill_at = 0
    before = False
    writes = 0

    def save(self, record: RunRecord, event: str, **more: Any) -> None:
        self.writes += 1
        if self.writes == self.kill_at and self.before:
            os.kill(os.getpid(), signal.SIGKILL)
        super().save(record, event, **more)
        if self.writes == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


async def live(engine: Engine) -> None:
    """Adopt, poll once, and go when everything is done."""
    async with serving(engine):
        watching = asyncio.create_task(engine.cancellations.run())
        log = engine.ambient.log
        await adopt(journal=engine.journal, link=engine.link, supervisor=engine.supervisor, log=log)
        await engine.poller.poll_once()
        await engine.supervisor.emptied.wait()
        watching.cancel()
        await asyncio.wait([watching])


def life(asked: dict[str, Any]) -> None:
    home = Path(asked["home"])
    journal = DyingJournal(path=str(home / "journal.db"), now=now, log=log_to(LogLines()))
    journal.kill_at, journal.before = asked["kill_at"], asked["before"]
    engine = life_engine(
        prefect=FakePrefect(major=3),
        url=asked["url"],
        socket=asked["socket"],
        home=home,
        journal=journal,
        poll_interval_s=0.05,
        then=asked.get("then", "cancel"),
    )
    for deployment_id, mode in json.loads((home / "deployments.json").read_text()).items():
        deployment = a_deployment(deployment_id, entrypoint=mode, run={"stop_timeout_s": 30.0})
        engine.registry.put(Entry(deployment=deployment, flow="etl", deployment_id=deployment_id))
    asyncio.run(live(engine))


def in_child(asked: dict[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            life(asked)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(f"{in_child(json.loads(line))}\n")
        sys.stdout.flush()
