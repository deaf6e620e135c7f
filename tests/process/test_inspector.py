"""inspector.py on a real spawner: a stand-in for Python answers for flows, and what it said is remembered."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.prefect import Inspection
from runnerd.core.problems import Problems
from runnerd.core.settings import Deployment, key_of
from runnerd.deployments.inspection import InspectionFailure
from runnerd.deployments.inspector import Inspector
from runnerd.deployments.registry import Key, Registry
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.journal.journal import Journal
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from runnerd.processes.client import SpawnerClient
from runnerd.processes.link import SpawnerLink
from tests.kits.links import running_link
from tests.kits.nouns import LogLines, a_deployment, log_to
from tests.kits.run_life import now
from tests.kits.spawner import OWN_USER, SpawnerUnderTest

# Answers for every entrypoint but `silent.py:f`; `mute` in its name answers nothing at all. Notes each start. An answer
# for `meets.py` waits until another process has been started, and `slow.py` is slow where others wait for it.
PYTHON = f"""#!{sys.executable} -IS
import hashlib, json, os, resource, sys, time
with open("asked.txt", "a") as file:
    file.write(os.environ["RUNNERD_INSPECT"] + "\\n")
LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
if "mute" in sys.argv[0]:
    sys.exit(7)
for entrypoint in json.loads(os.environ["RUNNERD_INSPECT"])["entrypoints"]:
    path = entrypoint.partition(":")[0]
    if path == "silent.py":
        continue
    if path == "loud.py":
        os.write(1, b"x" * (8 * 2**20))
        while os.fstat(1).st_blocks * 512 > 2**20:
            time.sleep(0.001)
    while path == "meets.py" and len(open("asked.txt").readlines()) < 2:
        time.sleep(0.001)
    if path == "slow.py" and "patience_s" in os.environ["RUNNERD_INSPECT"]:
        said = {{"error": {{"kind": "slow", "message": "slow.py takes longer"}}}}
    elif path == "bad.py":
        said = {{"error": {{"kind": "import-failed", "message": "cannot import bad.py"}}}}
    else:
        digest = hashlib.sha256(open(path, "rb").read()).hexdigest()
        about = os.stat("limits.txt") if os.path.exists("limits.txt") else None
        stamp = about and f"{{about.st_mtime_ns}} {{about.st_size}} {{about.st_ino}}"
        imported = {{"dependencies": {{os.path.abspath("limits.txt"): stamp}}}} if about else {{}}
        flow = {{"flow_name": path, "parameter_schema": {{}}, "prefect_version": "3.8.8", "sha256": digest}}
        if path == "api.py":
            flow["flow_name"] = os.environ["PREFECT_API_URL"] + " " + os.environ["PREFECT_API_KEY"]
        said = {{"ok": flow | imported | {{"description": os.environ.get("MOOD"), "version": str(LIMIT)}}}}
    os.write(3, (json.dumps({{"entrypoint": entrypoint, **said}}) + "\\n").encode())
"""


class Bench:
    """An inspector, and the directory whose flows it inspects."""

    def __init__(self, spawner: SpawnerUnderTest) -> None:
        self.home = spawner.home
        self.work = spawner.home / "work"
        self.work.mkdir()
        self.python = self.script("python")
        self.journal = Journal(path=str(spawner.home / "journal.db"), now=now, log=log_to(LogLines()))
        lines = LogLines()

        def connect(on_record: Callable[..., None], on_lost: Callable[[], None]) -> SpawnerClient:
            return SpawnerClient(socket_path=spawner.socket, on_record=on_record, on_lost=on_lost)

        async def start() -> None: ...

        self.link = SpawnerLink(make_client=connect, start_spawner=start, problems=Problems(), log=log_to(lines))
        environments = Environments(environ={}, calls=BoundedCalls())
        self.inspector = Inspector(
            link=self.link,
            journal=self.journal,
            registry=Registry(),
            environments=environments,
            access=lambda: ApiAccess(url="http://p/api", environment={"PREFECT_API_KEY": "pnu_secret"}),
            calls=BoundedCalls(),
            work_dir=str(self.work),
            at_once=2,
        )

    def script(self, name: str) -> str:
        path = self.home / name
        path.write_text(PYTHON)
        path.chmod(0o755)
        return str(path)

    def deployment(self, name: str, file: str, **run: object) -> Deployment:
        path = self.home / file
        if not path.exists():
            path.write_text("# a flow\n")
        settings = {"python": self.python, "working_directory": str(self.home), "user": OWN_USER, **run}
        return a_deployment(name, entrypoint=f"{file}:f", run=settings)

    def asked(self) -> int:
        """Processes started since the last look."""
        path = self.home / "asked.txt"
        count = len(path.read_text().splitlines()) if path.exists() else 0
        path.unlink(missing_ok=True)
        return count

    def left_behind(self) -> list[Path]:
        return list(self.work.iterdir())


@asynccontextmanager
async def working_bench(spawner: SpawnerUnderTest) -> AsyncIterator[Bench]:
    bench = Bench(spawner)
    with closing(bench.journal):
        async with running_link(bench.link):
            yield bench
            assert bench.left_behind() == []
            assert bench.link.records() == []


def flow_names(found: dict[Key, Inspection | InspectionFailure]) -> list[str]:
    return [one.flow_name if isinstance(one, Inspection) else one.message for one in found.values()]


async def test_one_process_for_all_flows_of_one_place(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        wanted = [bench.deployment(name, f"{name}.py") for name in "abc"]
        wanted.append(replace(wanted[0], name="a again"))
        found = await bench.inspector.inspect(wanted)
        assert set(found) == {key_of(one) for one in wanted}
        assert sorted(flow_names(found)) == ["a.py", "a.py", "b.py", "c.py"]
        assert bench.asked() == 1


async def test_a_flow_is_imported_with_the_access_of_its_runs(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        own = {"environment": {"PREFECT_API_KEY": "its own", "PREFECT_API_URL": "http://elsewhere/api"}}
        wanted = [bench.deployment("a", "api.py"), bench.deployment("b", "api.py", **own)]
        found = await bench.inspector.inspect(wanted)
        names = flow_names({key_of(one): found[key_of(one)] for one in wanted})
        assert names == ["http://p/api pnu_secret", "http://p/api its own"]


async def test_processes_run_at_the_same_time(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        wanted = [bench.deployment(mood, "meets.py", environment={"MOOD": mood}) for mood in ("good", "bad")]
        assert flow_names(await bench.inspector.inspect(wanted)) == ["meets.py", "meets.py"]


async def test_a_slow_one_is_inspected_alone(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        slow, quick = bench.deployment("slow", "slow.py"), bench.deployment("quick", "quick.py")
        for started in (1, 0):  # the second time it is known
            found = await bench.inspector.inspect([slow, quick])
            finding = found[key_of(slow)]
            assert isinstance(finding, InspectionFailure) and finding.kind == "slow"
            assert isinstance(found[key_of(quick)], Inspection)
            assert bench.asked() == started
        assert isinstance(await bench.inspector.inspect_alone(slow), Inspection)
        assert bench.asked() == 1
        assert isinstance((await bench.inspector.inspect([slow]))[key_of(slow)], Inspection)
        assert bench.asked() == 0


async def test_another_place_is_another_process(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        wanted = [
            bench.deployment("a", "a.py"),
            bench.deployment("b", "b.py", environment={"MOOD": "good"}),
            bench.deployment("c", "c.py", python=bench.script("python2")),
        ]
        found = await bench.inspector.inspect(wanted)
        assert bench.asked() == 3
        moods = [one.description for one in found.values() if isinstance(one, Inspection)]
        assert sorted(moods, key=str) == [None, None, "good"]


async def test_what_was_said_is_remembered_until_the_file_changes(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        wanted = [bench.deployment(name, f"{name}.py") for name in "ab"]
        assert await bench.inspector.cached(wanted) == {}
        first = await bench.inspector.inspect(wanted)
        assert await bench.inspector.cached(wanted) == first
        assert await bench.inspector.inspect(wanted) == first
        assert bench.asked() == 1
        (bench.home / "a.py").write_text("# another flow\n")
        assert set(await bench.inspector.cached(wanted)) == {key_of(wanted[1])}
        await bench.inspector.inspect(wanted)
        assert bench.asked() == 1
        assert set(await bench.inspector.cached(wanted)) == {key_of(one) for one in wanted}


async def test_a_flow_is_imported_within_the_limits_of_its_runs(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        limits = [{"nofile": (50, 50)}, {"nofile": (60, 60)}, {"nofile": (50, 50)}]
        wanted = [bench.deployment(f"d{n}", f"{n}.py", rlimits=one) for n, one in enumerate(limits)]
        found = await bench.inspector.inspect(wanted)
        versions = [one.version for one in map(found.get, map(key_of, wanted)) if isinstance(one, Inspection)]
        assert versions == ["50", "60", "50"]
        assert bench.asked() == 2


async def test_a_flow_that_prints_when_it_is_imported_fills_no_disk(spawner: SpawnerUnderTest) -> None:
    """The stand-in answers once what it printed has been cut."""
    async with working_bench(spawner) as bench:
        (found,) = (await bench.inspector.inspect([bench.deployment("loud", "loud.py")])).values()
        assert isinstance(found, Inspection)


async def test_what_a_flow_imports_is_watched_and_so_is_its_environment_file(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        limits, environment_file = bench.home / "limits.txt", bench.home / "env"
        limits.write_text("eu, us")
        environment_file.write_text("MOOD=good\n")
        flow = bench.deployment("a", "a.py", environment_file=str(environment_file))
        await bench.inspector.inspect([flow])
        assert await bench.inspector.changed([flow]) == []
        limits.write_text("eu, us, asia")
        assert await bench.inspector.changed([flow]) == [flow]
        await bench.inspector.inspect([flow])
        assert await bench.inspector.changed([flow]) == []
        environment_file.write_text("MOOD=better\n")
        assert await bench.inspector.changed([flow]) == [flow]
        (found,) = (await bench.inspector.inspect([flow])).values()
        assert isinstance(found, Inspection) and found.description == "better"
        assert bench.asked() == 3
        await bench.inspector.inspect([flow], afresh={key_of(flow)})
        assert bench.asked() == 1


async def test_a_broken_file_is_watched(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        flow = bench.deployment("bad", "bad.py")
        await bench.inspector.inspect([flow])
        assert await bench.inspector.changed([flow]) == []
        (bench.home / "bad.py").write_text("mended = True")
        assert await bench.inspector.changed([flow]) == [flow]


async def test_failures_are_of_their_own_deployment_and_not_remembered(spawner: SpawnerUnderTest) -> None:
    async with working_bench(spawner) as bench:
        wanted = [bench.deployment(name, f"{name}.py") for name in ("good", "bad", "silent")]
        for _ in range(2):
            found = await bench.inspector.inspect(wanted)
            assert flow_names({key_of(wanted[0]): found[key_of(wanted[0])]}) == ["good.py"]
            bad, silent = (found[key_of(one)] for one in wanted[1:])
            assert isinstance(bad, InspectionFailure)
            assert isinstance(silent, InspectionFailure)
            assert (bad.kind, silent.kind) == ("import-failed", "no-answer")
            assert silent.message == "the inspection process ended before it answered: exited 0"
        assert bench.asked() == 2


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({"python": "/opt/x/bin/python"}, "no such interpreter /opt/x/bin/python"),
        ({"python": "mute"}, "ended before it answered: exited 7"),
        ({"user": "no-such-user"}, "no such user no-such-user"),
        ({"environment_file": "/no/such/file"}, "environment_file /no/such/file: No such file or directory"),
    ],
)
async def test_why_nobody_answers(spawner: SpawnerUnderTest, run: dict[str, str], words: str) -> None:
    async with working_bench(spawner) as bench:
        settings = {**run, "python": bench.script("mute")} if run.get("python") == "mute" else run
        (finding,) = (await bench.inspector.inspect([bench.deployment("a", "a.py", **settings)])).values()
        assert isinstance(finding, InspectionFailure)
        assert words in finding.message


async def test_a_spawner_that_is_lost_in_the_middle(spawner: SpawnerUnderTest) -> None:
    """It comes back and still has the process, or tells how it ended."""
    async with working_bench(spawner) as bench:
        asking = asyncio.create_task(bench.inspector.inspect([bench.deployment("a", "a.py")]))
        while not bench.link.records():
            await asyncio.sleep(0.001)
        spawner.end(9)
        spawner.start()
        (finding,) = (await asking).values()
        assert isinstance(finding, Inspection | InspectionFailure)
