"""pulling.py: what is asked of the process that pulls, and that its answer is not believed blindly."""

from __future__ import annotations

import json

import pytest

from runnerd.core.exit_words import exit_words
from runnerd.core.process import Exit, Identity, LaunchSpec
from runnerd.core.settings import RunSettings
from runnerd.core.source import Tree
from runnerd.deployments.sources.credentials import Login
from runnerd.deployments.sources.pulling import Pulled, Puller, Wanted
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.processes.helper import HelperOutcome
from runnerd.processes.protocol import Record
from tests.kits.nouns import NOON, Json
from tests.kits.sources import a_source

COMMIT = "a" * 40
TREE = f"/var/x-sources/0-tok/h/trees/{COMMIT}-00000000"
GOOD = {"commit": COMMIT, "directory": TREE, "outside": []}


def a_puller() -> Puller:
    environments = Environments(environ={}, calls=BoundedCalls())
    return Puller(link=None, environments=environments, work_dir="/w", place="/var/x-sources", token="tok")  # type: ignore[arg-type]


def read(answer: str, **record: Json) -> Pulled | str:
    identity = Identity(boot_id="b", pid=1, start_ticks=1)
    fields = {"phase": "exited", "exit": Exit(code=0), "identity": identity, "pgid": 1, "user": "etl", **record}
    ended = Record(key="inspect-1", attempt=1, started_at=NOON, **fields)
    outcome = HelperOutcome(ended, answer, "Traceback\nMemoryError\n")
    return a_puller()._read(outcome, a_source(url="https://git.example/etl.git?token=hush"))


def test_a_tree() -> None:
    found = read(json.dumps({"ok": {**GOOD, "outside": ["a.py"]}}))
    assert found == Pulled(tree=Tree(commit=COMMIT, directory=TREE), outside=frozenset({"a.py"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"commit": "main"},
        {"commit": "b" * 40},
        {"commit": None},
        {"directory": f"/var/x-sources/0-tok/../../../etc/{COMMIT}-0"},
        {"directory": f"/etc/{COMMIT}-0"},
        {"directory": f"/var/x-sources/0-other/h/trees/{COMMIT}-0"},
        {"directory": f"/var/x-sources-tok/0-tok/h/{COMMIT}-0"},
        {"directory": 5},
        {"outside": None},
    ],
)
def test_an_answer_that_cannot_be(changes: Json) -> None:
    assert read(json.dumps({"ok": {**GOOD, **changes}})) == "the process that pulls it exited 0: MemoryError"


@pytest.mark.parametrize("text", ["", "{", "[]", "5", '{"ok": 5}', "null", "[" * 100_000])
def test_no_answer(text: str) -> None:
    assert exit_words(Exit(code=1)) in str(read(text, exit=Exit(code=1)))


def test_a_failure_is_one_line_without_the_secrets_of_the_url() -> None:
    words = read(json.dumps({"error": "cannot fetch\nhttps://git.example/etl.git?token=hush"}))
    assert words == "cannot fetch https://git.example/etl.git"


def test_the_time_limit_is_named() -> None:
    assert read("", stop_reason="timeout") == "pulling it took longer than 5min; see time_limit"


def test_the_process_is_the_flows_user_within_its_limits() -> None:
    run = RunSettings(
        python="/venv/bin/python", user="etl", working_directory="/", memory_max_bytes=2**30, tasks_max=9, nice=5
    )
    wanted = Wanted(source=a_source(size_max_bytes=4096, time_limit_s=7.0), run=run, login=Login("ada", "s3cr3t"))
    spec: LaunchSpec = a_puller()._spec(wanted, {"A": "b"})
    assert (spec.argv[0], spec.user, spec.memory_max_bytes, spec.tasks_max) == ("/venv/bin/python", "etl", 2**30, 9)
    assert (spec.runtime_max_s, spec.rlimits["fsize"], spec.umask) == (7.0, (4096, 4096), 0o077)
    assert "s3cr3t" not in " ".join(spec.argv)
    assert a_puller()._work(wanted)["secret"] == ["ada", "s3cr3t"]


def test_stores_are_dropped_only_where_all_that_are_kept_are_said() -> None:
    def said(count: int) -> Json:
        stores = [f"{number:016x}" for number in range(count)]
        run = RunSettings(python="/usr/bin/python3", working_directory="/")
        wanted = Wanted(source=a_source(), run=run, stores=stores)
        return a_puller()._work(wanted)["stores"]

    assert said(0) is None
    assert len(said(1000)) == 1000
    assert said(1001) is None
