"""An event loop that imports have made: every run that is forked has its own, as it would have had cold."""

from __future__ import annotations

import asyncio

import pytest

from tests.kits.pythons import pythons
from tests.kits.spawner import SpawnerUnderTest
from tests.kits.warm import flow_spec, make_prefect, run_to_end, start_warm, until_warm, warm_spec

LOOP = """
import asyncio
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
loop.run_until_complete(asyncio.sleep(0))
"""
USED = "import asyncio\nfrom loops import loop\nloop.run_until_complete(asyncio.sleep(0))\n"
FLOW = """
import asyncio, os, threading
from loops import loop
assert asyncio.get_event_loop_policy().get_event_loop() is loop
print({fd: os.readlink(f"/proc/self/fd/{fd}").partition("[")[0] for fd in sorted(os.listdir("/proc/self/fd"))[:-1]})
async def wait():  # for another thread, which wakes the loop by its sockets
    done = asyncio.Event()
    threading.Timer(0.3, loop.call_soon_threadsafe, (done.set,)).start()
    await asyncio.wait_for(done.wait(), 60)
    return await loop.run_in_executor(None, abs, -1)
print(loop.run_until_complete(wait()))
"""


@pytest.mark.parametrize("python", [pytest.param("", id="this Python"), *pythons()])
async def test_each_run_has_descriptors_of_its_own_for_it(spawner: SpawnerUnderTest, python: str) -> None:
    """Python 3.9 makes one where Prefect 2 makes a lock. Runs that share its epoll would wake each other, or never."""
    library = make_prefect(spawner, init="import loops\n")
    (library / "loops.py").write_text(LOOP)
    (library / "used.py").write_text(USED)
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner, python=python, preload=["used"]))
        keys = [f"run-{number}" for number in range(4)]
        cold = await run_to_end(link, flow_spec(spawner, "cold", FLOW, fork_of=None, python=python))
        warm = await asyncio.gather(*(run_to_end(link, flow_spec(spawner, key, FLOW, python=python)) for key in keys))
        assert [record.start for record in (cold, *warm)] == ["cold", *["warm"] * 4]
        said = spawner.output("cold")
        assert "anon_inode:" in said and "socket:" in said and said.endswith("\n1\n")
        assert [spawner.output(key).replace(key, "cold") for key in keys] == [said] * 4


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("import os\nr, w = os.pipe()\nloop.add_reader(r, print)\n", id="a file"),
        pytest.param("import signal\nloop.add_signal_handler(signal.SIGUSR1, print)\n", id="signals"),
    ],
)
async def test_one_that_watches_more_is_refused(spawner: SpawnerUnderTest, more: str) -> None:
    library = make_prefect(spawner)
    (library / "odd.py").write_text(f"{LOOP}{more}")
    async with spawner.link() as link:
        await link.client.spawn(warm_spec(spawner, preload=["odd"]))
        failed = (await until_warm(link, "failed")).warm
        assert failed is not None and (failed.problem or "").startswith("importing odd left a file open (anon_inode:")
