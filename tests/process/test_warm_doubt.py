"""Whatever is in doubt about a warm interpreter or its fork: the run starts cold, once, and the record says why."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest

from runnerd.core.errors import SpawnerError
from runnerd.core.process import LaunchSpec
from runnerd.processes.protocol import Record
from tests.kits.spawner import Link, SpawnerUnderTest, assert_nothing_left, needs_root, wait_until
from tests.kits.warm import (
    WARM,
    base_environment,
    flow_spec,
    make_prefect,
    python_of,
    run_to_end,
    start_warm,
    until_warm,
    warm_spec,
)

# --- what may not be preloaded ----------------------------------------------------------------------------------


TICK = "threading.Thread(target=time.sleep, args=(99,), daemon=True, name='ticker').start()"
REFUSED = {
    f"import threading, time\n{TICK}": (
        "importing odd started a thread (ticker): a process with 2 threads is not forked"
    ),
    "import _thread, time\n_thread.start_new_thread(time.sleep, (99,))": (
        "importing odd started a thread: a process with 2 threads is not forked"
    ),
    "kept = open('/etc/passwd')": "importing odd left a file open (/etc/passwd), which runs must not share",
    "import socket\nkept = socket.socket()": "importing odd left a file open (socket:",
    "import nowhere": "cannot import odd: ModuleNotFoundError: No module named 'nowhere'",
    "raise SystemExit(3)": "cannot import odd: SystemExit: 3",
    "raise ValueError('two\\nlines ' + 'x' * 5000)": "cannot import odd: ValueError: two lines xxx",
}


@pytest.mark.parametrize("module", REFUSED)
async def test_a_module_that_cannot_be_shared_is_refused(spawner: SpawnerUnderTest, module: str) -> None:
    library = make_prefect(spawner)
    (library / "fine.py").write_text("")
    (library / "odd.py").write_text(module)
    async with spawner.link() as link:
        await link.client.spawn(warm_spec(spawner, preload=["fine", "odd"]))
        failed = (await until_warm(link, "failed")).warm
        assert failed is not None and failed.problem is not None and failed.problem.startswith(REFUSED[module])
        ended = await link.until(WARM, "exited")
        assert (ended.warm, ended.exit and ended.exit.code) == (failed, 1)
        record = await run_to_end(link, flow_spec(spawner, "run-1", "print('ran')"))
        assert (record.start, spawner.output("run-1")) == ("cold", "ran\n")


async def test_who_preloads_a_library_that_starts_threads_is_told_what_keeps_it_from_that(
    spawner: SpawnerUnderTest,
) -> None:
    """As numpy's OpenBLAS, of which Python knows no thread."""
    library = make_prefect(spawner)
    (library / "libscipy_openblas64_.so").write_bytes(b"x" * 4096)
    (library / "odd.py").write_text(
        "import _thread, mmap, os, time\n"
        f"with open({str(library / 'libscipy_openblas64_.so')!r}, 'rb') as file:\n"
        "    loaded = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "_thread.start_new_thread(time.sleep, (99,))\n"
    )
    refused = "importing odd started a thread: a process with 2 threads is not forked"
    remedy = "; set OPENBLAS_NUM_THREADS=1 in run.environment, which its runs then have too"
    environment = base_environment(spawner)
    async with spawner.link() as link:
        for key, threads in (("warm-1", "2"), ("warm-2", "1")):
            given = {**environment, "OPENBLAS_NUM_THREADS": threads}
            await link.client.spawn(warm_spec(spawner, preload=["odd"], key=key, environment=given))
            failed = (await until_warm(link, "failed", key=key)).warm
            assert failed is not None and failed.problem == refused + ("" if threads == "1" else remedy)
            await link.until(key, "exited")


async def test_preloaded_modules_are_there(spawner: SpawnerUnderTest) -> None:
    library = make_prefect(spawner)
    (library / "slow.py").write_text(
        "import os\nprint('importing'); by = os.getpid(); os.environ['SET_BY_IMPORT'] = 'x'"
    )
    async with spawner.link() as link:
        warm = await start_warm(link, warm_spec(spawner, preload=["slow"]))
        flow = "import os, slow; print(slow.by == os.getpid(), os.environ['SET_BY_IMPORT'])"
        record = await run_to_end(link, flow_spec(spawner, "run-1", flow))
        assert (record.start, spawner.output("run-1")) == ("warm", "False x\n")
        assert spawner.output(WARM) == "importing\n"
        assert warm.identity is not None


async def test_variables_that_an_import_changes_are_changed_for_a_run_too(spawner: SpawnerUnderTest) -> None:
    """Where the run has the value that the import found; else its own value stays, as nothing says what would be."""
    library = make_prefect(spawner)
    (library / "sets.py").write_text("import os\nos.environ.update(PATH='/x', LANG='C')\ndel os.environ['HOME']\n")
    flow = "import os, sets\nprint(*map(os.environ.get, ('PATH', 'HOME', 'LANG', 'FLOW')))"
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner, preload=["sets"]))
        spec = flow_spec(spawner, "run-1", flow)
        assert (await run_to_end(link, spec)).start == "warm"
        path = spec.environment["FLOW"]
        assert spawner.output("run-1") == f"/x None C {path}\n"
        other = replace(spec, key="run-2", output=str(spawner.home / "run-2.out"))
        await run_to_end(link, replace(other, environment={**spec.environment, "PATH": "/bin"}))
        assert spawner.output("run-2") == f"/bin None C {path}\n"


async def test_a_thread_that_starts_later_keeps_runs_cold(spawner: SpawnerUnderTest) -> None:
    library = make_prefect(spawner)
    (library / "later.py").write_text(
        "import signal, threading, time\n"
        "def start(*_):\n"
        "    threading.Thread(target=time.sleep, args=(999,), daemon=True).start()\n    print('started', flush=True)\n"
        "signal.signal(signal.SIGUSR1, start)\n"
    )
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner, preload=["later"]))
        assert (await run_to_end(link, flow_spec(spawner, "run-1", "pass"))).start == "warm"
        await link.client.signal(key=WARM, attempt=0, signal=signal.SIGUSR1)
        spawner.wait_for_output(WARM, "started")
        record = await run_to_end(link, flow_spec(spawner, "run-2", "print('ran')"))
        assert (record.start, spawner.output("run-2")) == ("cold", "ran\n")
        assert "started a thread" in (record.start_problem or "")


@pytest.mark.parametrize("name", ["json.py", "json/__init__.py"])
async def test_a_file_that_shadows_an_imported_module_keeps_the_run_cold(spawner: SpawnerUnderTest, name: str) -> None:
    make_prefect(spawner)
    work = spawner.home / "work"
    (work / name).parent.mkdir(parents=True)
    (work / name).write_text("mine = True\n")
    (work / "helper.py").write_text("")
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        flow = "import json; print(json.mine)"
        record = await run_to_end(link, flow_spec(spawner, "run-1", flow, working_directory=str(work)))
        assert (record.start, spawner.output("run-1")) == ("cold", "True\n")
        assert "in the working directory has the name of a module" in (record.start_problem or "")


# --- interpreters that misbehave ----------------------------------------------------------------------------------

READY = "say({'ready': {'python': '3', 'prefect': '3', 'import_s': 1}})\n"
HEAD = (
    "import json, os, socket, time\nsock = socket.socket(fileno=3)\n"
    "def say(what): sock.send(json.dumps(what).encode())\n"
    "def hear(): return socket.recv_fds(sock, 4096, 8)\n"
)
STAY = "print('stays', flush=True)\ntime.sleep(999)\n"


def odd_spec(spawner: SpawnerUnderTest, program: str, **settings: object) -> LaunchSpec:
    """An interpreter that is another program."""
    argv = (python_of(settings), "-c", HEAD + program)
    return spawner.spec(WARM, *argv, environment=base_environment(spawner), forks=True, **settings)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("sock.send(b'garbage')", "it has sent what is not JSON"),
        ("sock.send(b'\\xff' * 100)", "it has sent what is not JSON"),
        ("sock.send(b'x' * 5000)", "it has sent a message of more than 4096 bytes"),
        ("sock.send(b'[1]')", "it has sent what is not JSON"),
        ("say({})", "it has sent an answer that was not asked for"),
        ("say({'forked': 1})", "it has sent an answer that was not asked for"),
        ("say({'ready': 1})", "it has sent a message that is wrong: ready must be a JSON object"),
        ("say({'ready': {'python': 'a\\nb', 'prefect': '3'}})", "it has sent a message that is wrong: python"),
        ("say({'ready': {'python': 'x' * 300, 'prefect': '3'}})", "it has sent a message that is wrong: python"),
        ("say({'failed': 'two\\nlines'})", "it has failed, and has sent a reason that is no short line"),
        ("say({'failed': 'x' * 600})", "it has failed, and has sent a reason that is no short line"),
        (READY + READY, "it has sent an answer that was not asked for"),
        (READY + "while True: say({'forked': 1})", "it has sent an answer that was not asked for"),
    ],
)
async def test_an_interpreter_that_sends_garbage_is_killed(
    spawner: SpawnerUnderTest, program: str, problem: str
) -> None:
    async with spawner.link() as link:
        await link.client.spawn(odd_spec(spawner, f"{program}\n{STAY}"))
        failed = await until_warm(link, "failed")
        assert failed.warm is not None and (failed.warm.problem or "").startswith(problem)
        ended = await link.until(WARM, "exited")
        # One that still sends may find its socket closed before it is killed.
        assert ended.exit is not None and (ended.exit.code, ended.exit.signal) in ((None, signal.SIGKILL), (1, None))
        assert ended.warm == failed.warm
    assert_nothing_left(spawner)


FORKS = "fds = hear()[1]\nm = os.fork()\nif m == 0:\n    if os.fork(): os._exit(0)\n    "
IS_READY = "os.write(fds[3], b'ready'); time.sleep(999)\n"
SAYS_FORKED = "say({'forked': 1}); time.sleep(999)"
THREAD = "import threading; threading.Thread(target=time.sleep, args=(999,)).start(); "
UNVERIFIED = {
    "no answer": ("time.sleep(999)", "it did not answer within 5 s"),
    "a closed socket": ("hear(); sock.close(); time.sleep(999)", "it has ended"),
    "an end": ("hear(); os._exit(0)", "has ended"),
    "a refusal": ("hear(); say({'refused': 1, 'why': 'no'}); time.sleep(999)", "no"),
    "a refusal without a reason": ("hear(); say({'refused': 1}); time.sleep(999)", "it has refused to fork"),
    "only an answer": (f"hear(); {SAYS_FORKED}", "the forked process was not ready within 5 s"),
    "an answer without a fork": (f"fds = hear()[1]; [os.close(fd) for fd in fds]; {SAYS_FORKED}", "has ended before"),
    "itself": (f"fds = hear()[1]; os.write(fds[3], b'ready'); {SAYS_FORKED}", "another run's"),
    "a child of its own": (
        f"fds = hear()[1]\nif os.fork() == 0:\n    os.setsid(); {IS_READY}{SAYS_FORKED}",
        "is not a child of the spawner",
    ),
    "no session": (f"{FORKS}{IS_READY}os.waitpid(m, 0); {SAYS_FORKED}", "does not lead a session"),
    "two threads": (f"{FORKS}os.setsid(); {THREAD}{IS_READY}os.waitpid(m, 0); {SAYS_FORKED}", "more than one thread"),
    "long words": ("fds = hear()[1]; os.write(fds[3], b'refused\\n' + b'x' * 90000); time.sleep(999)", "xxx"),
    "odd words": ("fds = hear()[1]; os.write(fds[3], b'refused\\na\\nb'); time.sleep(999)", "has ended before"),
}


@pytest.mark.parametrize("answer", UNVERIFIED)
async def test_a_fork_that_cannot_be_verified_leaves_the_run_cold(spawner: SpawnerUnderTest, answer: str) -> None:
    program, problem = UNVERIFIED[answer]
    make_prefect(spawner)
    async with spawner.link() as link:
        await start_warm(link, odd_spec(spawner, READY + program))
        record = await run_to_end(link, flow_spec(spawner, "run-1", "print('ran')"))
        assert (record.start, spawner.output("run-1")) == ("cold", "ran\n")
        assert record.exit is not None and record.exit.code == 0
        assert problem in (record.start_problem or "")
        await end_warm(link)
    assert_nothing_left(spawner)


async def test_a_fork_that_hangs_does_not_end_the_interpreter(spawner: SpawnerUnderTest) -> None:
    """As one in a directory that does not answer: the interpreter is of other deployments too."""
    make_prefect(spawner)
    slow = "fds = hear()[1]; say({'forked': 1})\n"
    late = "number = json.loads(hear()[0])['fork']; say({'refused': number, 'why': 'it lives'}); time.sleep(999)"
    async with spawner.link() as link:
        await start_warm(link, odd_spec(spawner, READY + slow + late))
        first = await run_to_end(link, flow_spec(spawner, "run-1", "print('ran')"))
        assert "the forked process was not ready within 5 s" in (first.start_problem or "")
        second = await run_to_end(link, flow_spec(spawner, "run-2", "print('ran')"))
        assert (second.start_problem or "").endswith("it lives")
        await end_warm(link)
    assert_nothing_left(spawner)


async def end_warm(link: Link) -> Record:
    await link.client.stop(key=WARM, attempt=0, reason="evict", timeout_s=0.0)
    return await link.until(WARM, "exited")


@needs_root
async def test_a_fork_that_has_become_another_user_is_refused(spawner: SpawnerUnderTest) -> None:
    """A process can give up what it has, as a root one does here; a run must be exactly what its interpreter was."""
    make_prefect(spawner)
    program = (
        "fds = hear()[1]\nm = os.fork()\nif m == 0:\n    if os.fork(): os._exit(0)\n"
        "    os.setsid(); os.setresuid(1, 1, 0); os.write(fds[3], b'ready'); time.sleep(999)\n"
        "os.waitpid(m, 0); say({'forked': 1}); time.sleep(999)"
    )
    async with spawner.link() as link:
        await start_warm(link, odd_spec(spawner, READY + program))
        record = await run_to_end(link, flow_spec(spawner, "run-1", "print('ran')"))
        assert record.start == "cold" and "is not the user" in (record.start_problem or "")
        await end_warm(link)
    assert_nothing_left(spawner)


async def test_what_was_forked_and_not_accepted_runs_nothing(spawner: SpawnerUnderTest) -> None:
    """The interpreter forks as it should, and then answers too late: the fork reads the end of its pipe."""
    make_prefect(
        spawner, init="import os\nos.register_at_fork(after_in_parent=lambda: __import__('time').sleep(999))\n"
    )
    mark = spawner.home / "mark"
    flow = f"import os\nwith open({str(mark)!r}, 'a') as file: file.write(f'{{os.getpid()}}\\n')"
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        record = await run_to_end(link, flow_spec(spawner, "run-1", flow))
        assert record.start == "cold" and "did not answer" in (record.start_problem or "")
        ended = await link.until(WARM, "exited")
        assert ended.exit is not None and ended.exit.signal == signal.SIGKILL
        assert ended.warm is not None and ended.warm.problem == "it did not answer a request to fork in time"
        assert record.identity is not None
        assert mark.read_text() == f"{record.identity.pid}\n", "once"
    assert_nothing_left(spawner)


async def test_the_spawner_dies_while_a_fork_waits(spawner: SpawnerUnderTest) -> None:
    make_prefect(spawner)
    program = (
        "fds = hear()[1]\nm = os.fork()\nif m == 0:\n    if os.fork(): os._exit(0)\n    os.setsid()\n"
        "    print('waits', os.getpid(), flush=True); print('read', os.read(fds[2], 1), flush=True); os._exit(0)\n"
        "os.waitpid(m, 0)\nwhile hear()[0]: pass\n"
    )
    async with spawner.link() as link:
        await start_warm(link, odd_spec(spawner, READY + program))
        starting = asyncio.create_task(link.client.spawn(flow_spec(spawner, "run-1", "print('ran')")))
        await asyncio.to_thread(spawner.wait_for_output, WARM, "waits")
        spawner.end(signal.SIGKILL)
        wait_until(lambda: "read b''" in spawner.output(WARM), "the end of the fork")
        with pytest.raises(SpawnerError):
            await starting
    assert list(spawner.records.glob("run-1*")) == []


async def test_descriptor_3_that_is_no_socket_ends_the_program(spawner: SpawnerUnderTest) -> None:
    """As below an older spawner, which knows nothing of `forks`."""
    make_prefect(spawner)
    async with spawner.link() as link:
        ended = await run_to_end(link, replace(warm_spec(spawner), forks=False))
        assert ended.exit is not None and ended.exit.code == 1 and ended.warm is None
