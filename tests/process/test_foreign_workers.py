"""pools/workers/worker.py on a real spawner: Prefect's own workers, which here are Prefect in miniature."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from runnerd.pools.workers.worker import end_leftovers
from runnerd.system.directories import work_dir
from tests.kits.nouns import Json
from tests.kits.other_workers import TINY, URL, Bench, Worker
from tests.kits.spawner import SpawnerUnderTest


@pytest.fixture
def bench(spawner: SpawnerUnderTest) -> Bench:
    return Bench(spawner)


def kill(document: dict[str, Json]) -> None:
    os.kill(document["pid"], signal.SIGKILL)


def options(argv: list[str]) -> dict[str, list[str]]:
    """The values of each option of a command line."""
    found: dict[str, list[str]] = {}
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        if word.startswith("--"):
            found.setdefault(word, []).extend([] if following.startswith("--") else [following])
    return found


async def test_it_is_started_as_the_pool_is_configured(bench: Bench) -> None:
    run = {"environment": {"DOCKER_HOST": "unix:///d"}, "umask": 0o27}
    settings = bench.settings(bench.full(), limit=3, prefetch_s=12.4, queues=("b", "a"), scratch=False, run=run)
    async with bench.daemon(settings, queues=("b", "a")) as worker:
        document = await worker.runs()
        (told,) = bench.started()
        assert told["argv"][:2] == ["worker", "start"]
        assert options(told["argv"][2:]) == {
            "--pool": ["pool"],
            "--type": ["tiny"],
            "--name": ["me"],
            "--work-queue": ["a", "b"],
            "--limit": ["3"],
            "--prefetch-seconds": ["12"],
            "--install-policy": ["never"],
            "--no-create-pool-if-not-found": [],
        }
        given = told["environment"]
        assert (given["PREFECT_API_URL"], given["PREFECT_API_KEY"], given["DOCKER_HOST"]) == (
            URL,
            "k-1",
            "unix:///d",
        )
        assert "LEAK" not in given
        assert told["cwd"] == str(bench.home)
        facts = {key: document[key] for key in ("state", "restarts", "package", "problem", "errors")}
        assert facts == {
            "state": "running",
            "restarts": 0,
            "package": "prefect-tiny",
            "problem": None,
            "errors": 0,
        }
        assert document["python"] == settings.run.python
        assert document["since"] and document["output"].endswith("/its-log/worker-pool.log")
        assert "k-1" not in str(document) + str(worker.link.records())
        await worker.prefect_worker.stop()
        assert worker.document["state"] == "waiting"
        assert "stopped!" in Path(document["output"]).read_text(), "politely"


async def test_the_major_before_is_started_as_that_one_wants_it(bench: Bench) -> None:
    settings = bench.settings(bench.full("2.20.25"))
    async with bench.daemon(settings, version="2.20.25") as worker:
        await worker.runs()
        (told,) = bench.started()
        assert "--no-create-pool-if-not-found" not in told["argv"]
        assert told["argv"][0] == "worker"
        assert told["cwd"] == "/", "nobody has said where"
        await worker.prefect_worker.stop()


async def test_the_next_daemon_keeps_it_and_replaces_one_with_other_settings(bench: Bench) -> None:
    settings = bench.settings(bench.full())
    bench.mode("12:00:00.000 | ERROR   | prefect.x - no docker here")
    async with bench.daemon(settings) as worker:
        first = await worker.runs()
    async with bench.daemon(replace(settings, install_policy="never")) as worker:
        document = await worker.until(lambda document: document["state"] == "running", "it to be found")
        assert (document["pid"], document["since"]) == (first["pid"], first["since"])
        assert document["python"], "what it runs with can be seen"
        assert "says: no docker here" in await worker.troubled("no docker"), "it said so to the daemon before"
    assert len(bench.started()) == 1
    async with bench.daemon(replace(settings, limit=7)) as worker:
        await worker.runs(2)
        assert not psutil.pid_exists(first["pid"])
        assert [record.phase for record in worker.link.records()] == ["running"]
        assert worker.document["restarts"] == 0
        await worker.prefect_worker.stop()
        assert worker.link.records() == []


async def test_it_is_started_anew_exactly_when_something_has_changed(bench: Bench) -> None:
    settings = bench.settings(bench.full(), match=("q-",))
    async with bench.daemon(settings, queues=("q-1", "q-2")) as worker:
        first = await worker.runs()
        same = replace(settings, place=replace(settings.place, line=99), run=replace(settings.run, limit=4))
        await worker.want(same, queues=("q-2", "q-1"))
        await worker.want(settings, queues=("q-1", "q-2", "q-3"))
        second = await worker.runs(2)
        bench.key = "k-2"
        await worker.want(settings, queues=("q-1", "q-2", "q-3"))
        await worker.runs(3)
        assert [one["environment"]["PREFECT_API_KEY"] for one in bench.started()] == ["k-1", "k-1", "k-2"]
        assert options(bench.started()[1]["argv"])["--work-queue"] == ["q-1", "q-2", "q-3"]
        assert len({first["pid"], second["pid"], worker.document["pid"]}) == 3
        broken = replace(settings, run=replace(settings.run, environment_file="/nonexistent/env"))
        await worker.want(broken, queues=("q-1", "q-2", "q-3"))
        problem = await worker.troubled("environment_file")
        assert problem.endswith("/nonexistent/env: No such file or directory; it runs on as it was started before")
        await worker.prefect_worker.stop()
    assert len(bench.started()) == 3


async def test_without_a_queue_that_matches_it_waits(bench: Bench) -> None:
    settings = bench.settings(bench.full(), match=("q-",))
    async with bench.daemon(settings) as worker:
        await worker.until(lambda document: document["state"] == "waiting", "it to wait")
        await worker.want(settings, queues=("q-1",))
        await worker.runs()
        await worker.want(settings)
        await worker.until(lambda document: document["state"] == "waiting" and not worker.link.records(), "its end")
        assert (worker.document["problem"], worker.document["pid"]) == (None, None)


async def test_one_that_ends_is_started_again_and_its_last_words_are_told(bench: Bench) -> None:
    async with bench.daemon(bench.settings(bench.full())) as worker:
        kill(await worker.runs())
        document = await worker.runs(2)
        assert (document["restarts"], document["state"]) == (1, "running")
        output = document["output"]
        who = "Prefect's tiny worker of work pool pool"
        assert document["problem"] == f"{who} ended: killed by SIGKILL; it runs again; see {output}"
        bench.mode("Unable to start worker. The cluster is gone.")
        kill(document)
        problem = await worker.troubled("exited 1")
        assert f"{who} ended: exited 1: Unable to start worker. The cluster is gone." in problem
        bench.mode("")
        await worker.until(lambda document: document["state"] == "running", "it to run again")
        said = {line.get("said") for line in bench.lines.all() if "does not run" in line["event"]}
        assert said == {None, "Unable to start worker. The cluster is gone."}
        await worker.prefect_worker.stop()


async def test_what_it_says_is_told_while_it_runs_on(bench: Bench) -> None:
    trace = "Traceback (most recent call last):\n  File x\nRuntimeError: Could not connect to Docker."
    entry = "12:00:00.000 | ERROR   | prefect.flow_runs.worker - Failed to submit flow run 'eel'."
    bench.mode(f"{entry}\n{trace}\n12:00:00.100 | INFO    | x - on\n{entry}\n{trace}")
    async with bench.daemon(bench.settings(bench.full())) as worker:
        problem = await worker.troubled("Could not connect to Docker")
        why = "Failed to submit flow run 'eel': RuntimeError: Could not connect to Docker. (2 errors so far)"
        assert problem.startswith(f"Prefect's tiny worker of work pool pool runs, and says: {why}; see ")
        assert (worker.document["state"], worker.document["errors"]) == ("running", 2)
        kill(worker.document)
        await worker.runs(2)
        await worker.troubled("runs, and says: Failed")
        await worker.prefect_worker.stop()


REFUSALS = {
    "no prefect": ("", {"install_policy": "never"}, {}, "has no Prefect, and install_policy is never;"),
    "never": ("bare", {"install_policy": "never"}, {}, "has no prefect-tiny, and install_policy is never;"),
    "prompt": ("bare", {"install_policy": "prompt"}, {}, "and a daemon cannot ask as install_policy: prompt says;"),
    "other major": (
        "full",
        {"install_policy": "never"},
        {"version": "2.20.25"},
        "has Prefect 3.8.8, and the server is 2.20.25, and install_policy is never;",
    ),
    "unknown type": ("", {}, {"kind": None, "type": "ours"}, "the server lists no worker of type ours; install what"),
    "no interpreter": ("gone", {}, {}, "cannot be started: /nonexistent/python: "),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_is_missing_is_told_with_what_to_do(bench: Bench, case: str) -> None:
    which, changes, wanted, words = REFUSALS[case]
    pythons = {
        "": lambda: bench.plain,
        "bare": lambda: bench.full(package=False),
        "full": bench.full,
        "gone": lambda: "/nonexistent/python",
    }
    python = pythons[which]()
    async with bench.daemon(bench.settings(python, **changes), **wanted) as worker:
        problem = await worker.troubled("cannot be started")
        assert words in problem
        if "install_policy" in words:
            major = 2 if "version" in wanted else 3
            assert problem.endswith(f"{python} -m pip install 'prefect>={major},<{major + 1}' prefect-tiny")
        assert (worker.document["state"], worker.document["pid"]) == ("failed", None)
    assert bench.started() == []
    assert os.listdir(work_dir(bench.paths)) == []


async def test_a_type_nobody_lists_runs_with_what_is_installed(bench: Bench) -> None:
    async with bench.daemon(bench.settings(bench.full()), kind=None, type="ours") as worker:
        await worker.runs()
        assert options(bench.started()[0]["argv"])["--type"] == ["ours"]
        assert worker.document["package"] is None
        await worker.prefect_worker.stop()


async def test_what_somebody_installs_meanwhile_is_found(bench: Bench) -> None:
    python = bench.plain
    async with bench.daemon(bench.settings(python, install_policy="never")) as worker:
        await worker.troubled("has no Prefect")
        os.replace(bench.full(), python)
        await worker.runs()
        assert (worker.document["problem"], worker.document["restarts"]) == (None, 0)
        await worker.prefect_worker.stop()


async def test_what_a_daemon_left_of_other_pools_is_ended(bench: Bench) -> None:
    python = bench.full()
    for pool in ("gone", "gone.too", "kept"):
        async with bench.daemon(bench.settings(python, name=pool)) as worker:
            await worker.until(lambda document: document["state"] == "running", "it to run")
    async with bench.linked() as link:
        await link.spawn(bench.spawner.spec("r-1", mode=("sleep",)))
        ended = await end_leftovers(link, ["kept"])
        assert sorted(key.split(".")[0].split("-")[1] for key in ended) == ["gone", "gone_too"]
        left = sorted(record.key for record in link.records())
        assert len(left) == 2 and left[0] == "r-1" and left[1].startswith("worker-kept.")
        assert len(await end_leftovers(link, [])) == 1
        assert [record.key for record in link.records()] == ["r-1"]


async def test_kinds_that_are_prefects_own_need_no_package(bench: Bench) -> None:
    own = replace(TINY, package="prefect")
    async with bench.daemon(bench.settings(bench.full(package=False)), kind=own) as worker:
        await worker.runs()
        assert worker.document["package"] is None
        await worker.prefect_worker.stop()


async def test_it_needs_no_slot_of_the_others(bench: Bench) -> None:
    """Two pools of one host: what keeps one from running is nothing to the other."""
    python = bench.full()
    async with bench.daemon(bench.settings(bench.plain, install_policy="never")) as first:
        second = Worker(bench, first.link, "second")
        await second.want(bench.settings(python, name="second"))
        task = asyncio.create_task(second.prefect_worker.run())
        await second.runs()
        assert "has no Prefect" in await first.troubled("pool pool")
        await second.prefect_worker.stop()
        await asyncio.wait([task])
        assert task.exception() is None, "stopping ends its keeping"
