"""inspection.py, inspector.py: flow files that their user has replaced, and answers that the flow's code wrote."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from runnerd.deployments.inspection import InspectionFailure, cache_key, parse_results
from runnerd.deployments.inspector import Inspector
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess, hooks_key
from tests.kits.engine import Engine, fake_engine, start
from tests.kits.nouns import make_sparse

T = TypeVar("T")
REPLACE: list[Callable[[Path], object]] = [
    os.mkfifo,
    make_sparse,
    os.mkdir,
    lambda path: os.symlink("absent.py", path),
    lambda path: os.symlink("/dev/zero", path),
]


def an_inspector(engine: Engine, folder: Path, calls: BoundedCalls) -> Inspector:
    return Inspector(
        link=engine.link,
        journal=engine.journal,
        registry=engine.registry,
        environments=Environments(environ={}, calls=calls),
        access=lambda: ApiAccess(url="http://p/api", environment={}),
        calls=calls,
        work_dir=str(folder),
        at_once=2,
    )


@pytest.mark.parametrize("put", REPLACE)
async def test_a_crash_of_a_run_whose_flow_file_was_replaced(tmp_path: Path, put: Callable[[Path], object]) -> None:
    """Whether the flow has hooks is unknown then, and the process that is to run them says what is wrong."""
    put(tmp_path / "flow.py")
    async with fake_engine(tmp_path) as (engine, spawner):
        engine.may_have_hook = an_inspector(engine, tmp_path, BoundedCalls()).may_have_hook
        run_id = await start(engine, engine.deploy(entrypoint="flow.py:f", run={"working_directory": str(tmp_path)}))
        spawner.exit(run_id, code=None, signal=9)
        await engine.until(lambda: spawner.runs_of(hooks_key(run_id)))
        spawner.exit(hooks_key(run_id), code=1)
        await engine.until_done(run_id)
        assert engine.prefect.state_of(run_id) == "CRASHED"


@pytest.mark.parametrize("put", REPLACE)
def test_the_content_of_what_was_put_there_is_unknown(tmp_path: Path, put: Callable[[Path], object]) -> None:
    put(tmp_path / "flow.py")
    assert cache_key(
        python="/usr/bin/python3", entrypoint="flow.py:f", working_directory=str(tmp_path), user=None, environment={}
    ) is None  # fmt: skip


class HeldCalls(BoundedCalls):
    """Calls that do not return before `released` is set, as on a disk that does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()
        self.begun = 0

    async def call(self, place: str, call: Callable[[], T]) -> T | Unanswered:
        def held() -> T:
            self.begun += 1
            self.released.wait()
            return call()

        return await super().call(place, held)


async def test_other_runs_go_on_while_a_flow_file_is_read(tmp_path: Path) -> None:
    async with fake_engine(tmp_path) as (engine, spawner):
        calls = HeldCalls()
        engine.may_have_hook = an_inspector(engine, tmp_path, calls).may_have_hook
        run_id = await start(engine, engine.deploy(entrypoint="flow.py:f", run={"working_directory": str(tmp_path)}))
        spawner.exit(run_id, code=None, signal=9)
        try:
            await engine.until(lambda: calls.begun)
            other = await start(engine, engine.deploy("other"))
            engine.prefect.set_state(other, "COMPLETED")
            spawner.exit(other)
            await engine.until_done(other)
            assert engine.phase(run_id) == "reporting"
        finally:
            calls.released.set()
        await engine.until(lambda: spawner.runs_of(hooks_key(run_id)))


def test_lines_of_any_length_and_depth() -> None:
    deep, long = "[" * 100_000, json.dumps({"entrypoint": "a.py:f", "ok": "x" * 2**21})
    for text in ("\0" * 2**20, deep, long, f"{deep}\n{long}\n"):
        (answer,) = parse_results(text, ["a.py:f"], words="ended").values()
        assert isinstance(answer, InspectionFailure)
        assert answer.kind == "no-answer"
