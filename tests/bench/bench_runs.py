"""Ten thousand runs that end, through the engine's real parts with fakes at its edges: what stays in memory of them.

The loop's clock jumps, so this takes minutes of processor time and no waiting. What the fakes remember is forgotten
after each batch; the journal is a file.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import psutil

from tests.kits import jump_loop
from tests.kits.bench import Budget, busy
from tests.kits.engine import Engine, fake_engine, running
from tests.kits.fakes.fake_spawner import FakeSpawner

RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
AT_ONCE = 50
WARM_UP = RUNS // 5  # until then caches and pools of objects may grow
OBJECTS_MAX, GROWTH_MIB_MAX = 1000, 2.0


async def run_batch(engine: Engine, spawner: FakeSpawner, deployment: str) -> None:
    runs = [engine.add_run(deployment) for _ in range(AT_ONCE)]
    engine.offer(*runs)
    await engine.until(lambda: all(running(engine, one) for one in runs))
    for one in runs:
        engine.prefect.set_state(one, "RUNNING")
        engine.prefect.set_state(one, "COMPLETED")
        spawner.exit(one)
    await engine.until(lambda: not engine.supervisor.records())
    for table in (engine.prefect.runs, engine.prefect.states, engine.prefect.asked, engine.prefect.keys):
        table.clear()
    for of_spawner in (spawner.started, spawner.records, spawner._specs, engine.changes):
        of_spawner.clear()
    engine.lines.truncate(0)
    engine.lines.seek(0)


def taken_now() -> tuple[Counter[str], float]:
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects()), psutil.Process().memory_info().rss / 2**20


async def measure(budget: Budget, folder: Path) -> None:
    async with fake_engine(folder, runs=AT_ONCE) as (engine, spawner):
        deployment, threads = engine.deploy(), 0
        before, mib_before = taken_now()
        for done in range(AT_ONCE, RUNS + 1, AT_ONCE):
            await run_batch(engine, spawner, deployment)
            threads = max(threads, threading.active_count())
            if done == WARM_UP:
                before, mib_before = taken_now()
            await asyncio.sleep(1)
        after, mib = taken_now()
    more = after - before
    note = f"most of them: {', '.join(f'{count} {name}' for name, count in more.most_common(4))}"
    growth = after.total() - before.total()
    budget.measure(f"objects that {RUNS - WARM_UP} ended runs left", growth, "objects", OBJECTS_MAX, note)
    budget.measure("growth of memory by them, RSS", mib - mib_before, "MiB", GROWTH_MIB_MAX, busy())
    budget.measure(f"threads with {AT_ONCE} runs at once", threads, "threads", note="bounded calls have theirs")


def main() -> int:
    budget = Budget()
    with tempfile.TemporaryDirectory(prefix="runnerd-bench-runs-") as folder:
        jump_loop.run(measure(budget, Path(folder)))
    return budget.exit_status


if __name__ == "__main__":
    sys.exit(main())
