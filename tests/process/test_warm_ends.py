"""A warm run ends as a cold one does: exit status, output, signal; and it is stopped, bounded and swept as one."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.processes.protocol import Record
from tests.kits.spawner import SpawnerUnderTest, wait_until
from tests.kits.warm import FORK_OF, flow_spec, make_prefect, run_to_end, start_warm, warm_spec

ENDS = {
    "by its last line": "print('done')",
    "by sys.exit with a status": "import sys; print('leaving'); sys.exit(7)",
    "by sys.exit with a text": "import sys; sys.exit('no rows')",
    "by exit": "exit(3)",
    "by an exception": "def work():\n    raise ValueError('no rows')\nwork()",
    "by an exception with a cause": "try:\n    1 / 0\nexcept Exception as error:\n    raise OSError(5, 'x') from error",
    "by an exception in a hook": "import sys\nsys.excepthook = lambda *_: print('hook')\nraise ValueError",
    "by a keyboard interrupt": "raise KeyboardInterrupt",
    "by SIGINT": "import os, signal; os.kill(os.getpid(), signal.SIGINT)\nwhile True: pass",
    "by SIGTERM": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)\nwhile True: pass",
    "by SIGSEGV": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "by os._exit": "import os; print('lost'); os._exit(9)",
    "by a closed pipe": "import os; r, w = os.pipe(); os.close(r); os.write(w, b'x')",
    "with atexit": "import atexit; atexit.register(print, 'at exit'); print('first')",
    "with a failing atexit": "import atexit; atexit.register(lambda: 1 / 0)",
    "with a thread that goes on": (
        "import threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\nprint('main')"
    ),
    "with a daemon thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()"
    ),
    "with an executor": (
        "from concurrent.futures import ThreadPoolExecutor\nprint(list(ThreadPoolExecutor(2).map(abs, [-1, -2])))"
    ),
    "with asyncio": "import asyncio\nasync def f(): print('in a loop')\nasyncio.run(f())",
    "with multiprocessing": (
        "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(1) as pool: print(pool.map(abs, [-1]))"
    ),
    "with multiprocessing as this Python has it": (
        "import multiprocessing\nif __name__ == '__main__':\n"
        "    with multiprocessing.Pool(1) as pool: print(pool.map(abs, [-1]), multiprocessing.get_start_method())"
    ),
    "with multiprocessing by spawn": (
        "import multiprocessing\nif __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(abs, [-1]))"
    ),
    "with multiprocessing by a fork server": (
        "import multiprocessing\nif __name__ == '__main__':\n"
        "    with multiprocessing.get_context('forkserver').Pool(1) as pool: print(pool.map(abs, [-1]))"
    ),
    "with a fork beside a thread": (  # of which Python warns since 3.12
        "import os, threading, time\n"
        "threading.Thread(target=time.sleep, args=(0.5,)).start()\n"
        "pid = os.fork()\nif not pid: os._exit(0)\nprint(os.waitpid(pid, 0)[1])"
    ),
    "with a warning": "import warnings; warnings.warn('odd')",
    "with buffered output": "import sys; sys.stdout.write('no end of line'); sys.stderr.write('e')",
}
_NAMES = re.compile(r"(cold|warm)-run-\d+|pid=\d+|0x[0-9a-f]+|line \d+, in _(shutdown|bootstrap)")


pytestmark = pytest.mark.time_limit(300)  # the first test pays for all flows


@pytest.fixture(scope="module")
def ends() -> Iterator[dict[str, list[tuple[Record, str]]]]:
    """How each flow has ended, cold and warm, and its output; `make warm-pythons` names other Pythons."""
    home = Path(tempfile.mkdtemp(prefix="warm-ends-"))
    home.chmod(0o755)
    spawner = SpawnerUnderTest(home)
    make_prefect(spawner)
    spawner.start()
    try:
        yield asyncio.run(run_all(spawner, os.environ.get("RUNNERD_TEST_PYTHON", "")))
    finally:
        spawner.clear()
        shutil.rmtree(home)


async def run_all(spawner: SpawnerUnderTest, python: str) -> dict[str, list[tuple[Record, str]]]:
    found = {}
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner, python=python))
        for number, (name, flow) in enumerate(ENDS.items()):
            found[name] = []
            for start, fork_of in (("cold", None), ("warm", FORK_OF)):
                key = f"{start}-run-{number}"
                record = await run_to_end(link, flow_spec(spawner, key, flow, fork_of=fork_of, python=python))
                assert record.start == start, record.start_problem
                found[name].append((record, _NAMES.sub("X", spawner.output(key))))
    return found


@pytest.mark.parametrize("how", ENDS)
def test_a_warm_run_ends_as_a_cold_one(ends: dict[str, list[tuple[Record, str]]], how: str) -> None:
    (cold, cold_output), (warm, warm_output) = ends[how]
    assert warm_output == cold_output
    assert cold.exit is not None and warm.exit is not None
    assert (warm.exit.code, warm.exit.signal, warm.exit.oom) == (cold.exit.code, cold.exit.signal, cold.exit.oom)
    assert warm.exit.cpu_s is not None and warm.exit.max_rss_bytes, "its parent is the spawner"


def test_the_ends_are_different_ones(ends: dict[str, list[tuple[Record, str]]]) -> None:
    """Or the comparison would be of nothing."""
    exits = {how: (cold.exit.code, cold.exit.signal) for how, ((cold, _), _) in ends.items() if cold.exit}
    assert exits["by sys.exit with a status"] == (7, None)
    assert exits["by SIGSEGV"] == (None, signal.SIGSEGV)
    assert exits["by a keyboard interrupt"] == (None, signal.SIGINT)
    assert "ValueError: no rows" in ends["by an exception"][0][1]
    assert ends["with atexit"][0][1] == "first\nat exit\n"


# --- stop, bounds -----------------------------------------------------------------------------------------------

STAY = "import signal\nprint('ready', flush=True)\nwhile True: signal.pause()\n"
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + STAY


@pytest.fixture
def library(spawner: SpawnerUnderTest) -> Path:
    return make_prefect(spawner)


@pytest.mark.usefixtures("library")
async def test_a_run_that_ignores_sigterm_is_killed(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        await link.client.spawn(flow_spec(spawner, "run-1", DEAF))
        spawner.wait_for_output("run-1")
        await link.client.stop(key="run-1", attempt=0, reason="cancel", timeout_s=0.2)
        ended = await link.until("run-1", "exited")
        assert ended.exit is not None and ended.exit.signal == signal.SIGKILL
        assert link.phases("run-1") == ["running", "stopping", "killing", "exited"]


@pytest.mark.usefixtures("library")
async def test_runtime_max_and_the_stop_signal_count(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        spec = flow_spec(spawner, "run-1", STAY, runtime_max_s=0.3, stop_signal=int(signal.SIGUSR2))
        ended = await run_to_end(link, spec)
        assert (ended.start, ended.stop_reason) == ("warm", "timeout")
        assert ended.exit is not None and ended.exit.signal == signal.SIGUSR2


@pytest.mark.usefixtures("library")
async def test_the_intent_is_sent_and_a_receipt_taken(spawner: SpawnerUnderTest) -> None:
    """With the variables that only this run got."""
    child = Path(__file__).with_name("child.py")
    speak = f"import sys\nsys.argv = ['child.py', 'speak', 'acknowledge']\nexec(open({str(child)!r}).read())"
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        record = await link.client.spawn(flow_spec(spawner, "run-1", speak, intents=True))
        assert record.start == "warm"
        spawner.wait_for_output("run-1")
        await link.client.stop(key="run-1", attempt=0, reason="cancel", prefect_intent="cancel")
        ended = await link.until("run-1", "exited")
        assert (ended.told, ended.exit and ended.exit.code) == (True, 0)


@pytest.mark.usefixtures("library")
async def test_the_output_is_bounded(spawner: SpawnerUnderTest) -> None:
    flood = "import sys\nfor number in range(200_000): sys.stdout.write('x' * 99 + '\\n')\nprint('end')"
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        ended = await run_to_end(link, flow_spec(spawner, "run-1", flood, output_max_bytes=2**20))
        assert ended.start == "warm"
        path = spawner.home / "run-1.out"
        assert path.stat().st_blocks * 512 <= 2**20 + 4096
        assert path.read_bytes()[:64] == b"\0" * 64, "it begins with a hole, by which readers know that it was cut"


@pytest.mark.usefixtures("library")
async def test_the_working_directory_is_made_for_the_run(spawner: SpawnerUnderTest) -> None:
    scratch = spawner.home / "scratch"
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        where = "import os, sys; print(os.getcwd(), oct(os.stat('.').st_mode), sys.path[0])"
        spec = flow_spec(spawner, "run-1", where, working_directory=str(scratch), make_directory=True, umask=0o077)
        ended = await run_to_end(link, spec)
        assert ended.start == "warm"
        assert spawner.output("run-1") == f"{scratch} 0o40700 {scratch}\n"


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("make", [False, True])
async def test_a_directory_that_fails_is_the_runs_error(spawner: SpawnerUnderTest, make: bool) -> None:
    there = spawner.home if make else spawner.home / "nowhere"
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        records = [
            await run_to_end(
                link,
                flow_spec(
                    spawner, key, "print('ran')", working_directory=str(there), make_directory=make, fork_of=fork_of
                ),
            )
            for key, fork_of in (("cold", None), ("run-1", FORK_OF))
        ]
        assert [record.start for record in records] == ["cold", "warm"]
        assert records[0].error == records[1].error is not None
        assert "ran" not in spawner.output("run-1")


@pytest.mark.usefixtures("library")
async def test_an_output_file_that_cannot_be_opened_is_the_runs_error(spawner: SpawnerUnderTest) -> None:
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        ended = await run_to_end(link, flow_spec(spawner, "run-1", "print('ran')", output="/dev/null"))
        assert ended.start == "cold" and "cannot be opened" in (ended.start_problem or "")
        assert ended.error is not None and ended.error.stage == "output"


@pytest.mark.usefixtures("library")
async def test_a_result_file_is_descriptor_3(spawner: SpawnerUnderTest) -> None:
    result = spawner.home / "result"
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        write = "import os; os.write(3, b'answer'); print(os.get_inheritable(3))"
        ended = await run_to_end(link, flow_spec(spawner, "run-1", write, result=str(result)))
        assert (ended.start, result.read_text(), spawner.output("run-1")) == ("warm", "answer", "True\n")


@pytest.mark.usefixtures("library")
async def test_the_end_of_another_run_does_not_touch_a_fork_under_way(spawner: SpawnerUnderTest) -> None:
    """A forked process that waits for its release is a child of the spawner, and leads no run yet."""
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        specs = [flow_spec(spawner, f"run-{n}", "pass" if n % 2 else STAY) for n in range(20)]
        records = await asyncio.gather(*(link.client.spawn(spec) for spec in specs))
        assert {record.start for record in records} == {"warm"}, [record.start_problem for record in records]
        for number in range(20):
            key = f"run-{number}"
            if number % 2 == 0:
                spawner.wait_for_output(key)
                await link.client.stop(key=key, attempt=0, reason="cancel")
            ended = await link.until(key, "exited")
            assert ended.exit is not None
            assert (ended.exit.code, ended.exit.signal) == ((0, None) if number % 2 else (None, signal.SIGTERM))
        assert spawner.process is not None
        children = Path(f"/proc/{spawner.process.pid}/task/{spawner.process.pid}/children")
        wait_until(lambda: len(children.read_text().split()) == 1, "the end of all but the interpreter")
        assert os.path.exists(f"/proc/{children.read_text().split()[0]}")
