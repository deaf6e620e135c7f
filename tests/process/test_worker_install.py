"""install_worker.py and pools/workers/interpreter.py: environments that runnerd keeps, made by the real pip."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.settings import PoolSettings
from runnerd.launch.spec import PROGRAM
from runnerd.processes.protocol import Record
from tests.kits.other_workers import Bench, Worker
from tests.kits.spawner import SYSTEM_PYTHON, SpawnerUnderTest, needs_root, needs_system_python


@pytest.fixture(scope="session")
def quick_venv(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A module `venv` that copies an environment: making one takes seconds of a processor."""
    place = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", place / "made"], check=True)
    copy = (
        f"shutil.rmtree(sys.argv[-1], ignore_errors=True)\nshutil.copytree({str(place / 'made')!r}, sys.argv[-1], True)"
    )
    (place / "venv.py").write_text(f"import shutil, sys\n{copy}\n")
    return str(place)


@pytest.fixture
def bench(spawner: SpawnerUnderTest, quick_venv: str) -> Bench:
    bench = Bench(spawner)
    bench.environment["PYTHONPATH"] = quick_venv
    return bench


SATISFIED = "Requirement already satisfied: prefect==3.8.8"


def environments(bench: Bench) -> list[Path]:
    """Those that there are, whole or not."""
    place = bench.home / ".cache" / "runnerd" / "workers"
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.exists() else []


def log_of(bench: Bench) -> str:
    path = Path(bench.paths.log) / "worker-pool.install.log"
    return path.read_text() if path.exists() else ""


def made(bench: Bench) -> int:
    """How often an environment was made."""
    return log_of(bench).count("making ")


async def test_an_environment_is_made_once_and_found_whole_or_made_again(bench: Bench) -> None:
    bench.wheels()
    settings = bench.settings(bench.plain)
    async with bench.daemon(settings) as worker:
        await worker.until(lambda document: document["state"] == "installing", "an installation")
        document = await worker.runs()
        (home,) = environments(bench)
        assert document["python"] == str(home / "bin" / "python")
        assert bench.started()[0]["environment"]["PATH"].startswith(f"{home}/bin:")
        assert home.stat().st_uid == os.geteuid()
        assert home.parent.stat().st_mode & 0o777 == 0o700
        os.kill(document["pid"], signal.SIGKILL)
        await worker.runs(2)
        await worker.prefect_worker.stop()
    assert made(bench) == 1
    (home / "runnerd.json").unlink()  # as when the host lost power while pip was at work
    shutil.rmtree(home / "lib")
    async with bench.daemon(settings) as worker:
        await worker.runs(3)
        assert made(bench) == 2
        second = Worker(bench, worker.link, "second")  # another pool of the same user
        await second.want(replace(settings, name="second"))
        task = asyncio.create_task(second.prefect_worker.run())
        await second.runs(4)
        assert environments(bench) == [home]
        for one in (worker, second):
            await one.prefect_worker.stop()
        await asyncio.wait([task])
        assert worker.link.records() == []


async def test_always_upgrades_once_in_a_daemons_life_and_starts_what_is_there_when_it_cannot(bench: Bench) -> None:
    bench.wheels()
    settings = bench.settings(bench.plain, install_policy="always")
    async with bench.daemon(settings) as worker:
        await worker.runs()
        await worker.prefect_worker.stop()
    assert log_of(bench).count(SATISFIED) == 0
    async with bench.daemon(settings) as worker:
        document = await worker.runs(2)
    assert log_of(bench).count(SATISFIED) == 1
    async with bench.daemon(settings) as worker:
        await worker.until(lambda document: document["state"] == "running", "it to be found")
        assert worker.document["pid"] == document["pid"], "what runs is not touched"
        (bench.spawner.home / "shelf" / "prefect_tiny-2.0-py3-none-any.whl").write_text("no wheel")
        for count in (3, 4):
            os.kill(worker.document["pid"], signal.SIGKILL)
            await worker.runs(count)
        await worker.prefect_worker.stop()
    (said,) = [line for line in bench.lines.all() if line["event"].startswith("cannot upgrade")]
    assert "invalid" in said["why"]
    assert made(bench) == 1


@contextmanager
def busy(bench: Bench, settings: PoolSettings) -> Iterator[Callable[[], None]]:
    """Somebody else works on the environment, until what this yields is called: who wants it as well has to wait."""
    place = Path(bench.plan(settings).directory)
    place.parent.mkdir(parents=True)
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lambda: fcntl.flock(lock, fcntl.LOCK_UN)


async def installing(worker: Worker) -> Record:
    """The installation, once it is under way and waits."""

    def under_way() -> list[Record]:
        return [one for one in worker.link.records() if one.key.startswith("install-pool.")]

    await worker.until(lambda document: document["state"] == "installing" and under_way(), "an installation")
    (seen,) = under_way()
    return seen


async def refused(bench: Bench, settings: PoolSettings, words: str) -> str:
    async with bench.daemon(settings) as worker:
        problem = await worker.troubled(words)
        assert (worker.document["state"], worker.document["pid"]) == ("failed", None)
        await worker.prefect_worker.stop()
        assert worker.link.records() == []
        return problem


async def test_what_pip_says_is_told(bench: Bench) -> None:
    bench.wheels()
    (bench.spawner.home / "shelf" / "prefect_tiny-1.0-py3-none-any.whl").unlink()
    problem = await refused(bench, bench.settings(bench.plain), "cannot be installed")
    assert "cannot be installed: No matching distribution found for prefect-tiny; see " in problem
    (home,) = environments(bench)
    assert not (home / "runnerd.json").exists()
    (said,) = [line for line in bench.lines.all() if "does not run" in line["event"]]
    assert said["again_in_s"] == 30, "nobody is asked every second"


async def test_a_home_that_cannot_be_written_is_told(bench: Bench) -> None:
    (bench.home / ".cache").write_text("not a directory")
    problem = await refused(bench, bench.settings(bench.plain), "cannot be installed")
    assert "set HOME or XDG_CACHE_HOME in run.environment to where its user may write" in problem


async def test_an_installation_goes_on_for_the_next_daemon(bench: Bench) -> None:
    bench.wheels()
    settings = bench.settings(bench.plain)
    with busy(bench, settings) as free:
        seen = set()
        for _ in range(2):
            async with bench.daemon(settings) as worker:
                seen.add((await installing(worker)).identity)
        assert len(seen) == 1
        assert environments(bench) == []
        async with bench.daemon(settings) as worker:
            assert (await installing(worker)).identity in seen
            free()
            await worker.runs()
            await worker.prefect_worker.stop()
    assert made(bench) == 1


async def test_stopping_ends_an_installation(bench: Bench) -> None:
    bench.wheels()
    settings = bench.settings(bench.plain)
    async with bench.daemon(settings) as worker:
        with busy(bench, settings):
            await installing(worker)
            await worker.prefect_worker.stop()
        assert worker.link.records() == []
        assert worker.document["problem"] is None
    assert bench.started() == []
    assert [line["event"] for line in bench.lines.all()] == []


@needs_root
@needs_system_python
async def test_it_is_made_and_used_by_the_pools_own_user(idle_spawner: SpawnerUnderTest) -> None:
    idle_spawner.start("--users", "nobody")
    bench = Bench(idle_spawner)
    bench.environment["PIP_NO_INDEX"] = "1"
    nobody = pwd.getpwnam("nobody")
    os.chown(bench.home, nobody.pw_uid, nobody.pw_gid)
    settings = bench.settings(SYSTEM_PYTHON, run={"user": "nobody"})
    async with bench.daemon(settings) as worker:
        await worker.until(lambda _: log_of(bench), "it to be made")
        await worker.prefect_worker.stop()
        assert (bench.home / ".cache" / "runnerd" / "workers").stat().st_uid == nobody.pw_uid
    python = bench.full()
    Path(python).write_text(Path(python).read_text().replace(sys.executable, SYSTEM_PYTHON))
    async with bench.daemon(bench.settings(python, run={"user": "nobody"})) as worker:
        await worker.runs()
        assert bench.started()[0]["uid"] == nobody.pw_uid
        await worker.prefect_worker.stop()


async def test_the_program_is_not_on_command_lines(bench: Bench) -> None:
    """It would fill every process list of the host."""
    settings = bench.settings(bench.plain)
    with busy(bench, settings):
        async with bench.daemon(settings) as worker:
            seen = await installing(worker)
            assert seen.identity is not None
            command = Path(f"/proc/{seen.identity.pid}/cmdline").read_text()
            await worker.prefect_worker.stop()
    assert PROGRAM in command
    assert len(command) < 200
