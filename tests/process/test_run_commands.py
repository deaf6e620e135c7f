"""run.before, run.after and the commands of notices, with a real spawner: what they get, and odd ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.settings import RunSettings
from runnerd.launch.run_commands import notice_spec
from runnerd.processes.command_words import failure_of
from tests.kits.engine import Engine
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.run_life import Stage
from tests.kits.spawner import SpawnerUnderTest

ODD = "$(id) `id` ; | > 'x' \"y\" \\ *"


@pytest.fixture
def stage(spawner: SpawnerUnderTest) -> Iterator[Stage]:
    prefect = FakePrefect(major=3)
    with prefect.serve() as url:
        yield Stage(spawner, prefect, url)


async def run(engine: Engine, folder: Path, *command: str, document: object = None, **changes: object) -> str | None:
    """Run the command of a notice; why it has failed."""
    about = {"id": "r", "name": ODD, **(document or {})}  # type: ignore[dict-item]
    settings = RunSettings(python="python3", working_directory=str(folder))
    spec = notice_spec(
        settings,
        command,
        about,
        key="notice-1",
        attempt=len(list(folder.glob("out*"))) + 1,
        environment={"PATH": "/usr/bin:/bin"},
        output=str(folder / f"out-{len(list(folder.glob('out*')))}"),
        timeout_s=float(changes.get("timeout_s", 60.0)),  # type: ignore[arg-type]
    )
    spec = replace(spec, own=True)  # the user of this test, whoever that is
    return await failure_of(await engine.link.run_to_end(spec), spec)


async def test_the_run_is_on_stdin_and_no_shell_sees_an_argument(stage: Stage) -> None:
    folder = stage.spawner.home
    async with stage.engine() as engine:
        script = (
            "import json, os, sys; json.dump([sys.argv[1:], json.load(sys.stdin), dict(os.environ)], open('f', 'w'))"
        )
        assert await run(engine, folder, "python3", "-c", script, "{{ run.name }}", "-x {{ run.id }}", ODD) is None
    arguments, document, environment = json.loads((folder / "f").read_text())
    assert arguments == [ODD, "-x r", ODD]
    assert document == {"id": "r", "name": ODD}
    assert not [name for name in environment if "DOCUMENT" in name.upper()], "it would be in the way of large runs"


@pytest.mark.parametrize(("command", "why"), [
    (["sh", "-c", "echo one; echo two >&2; exit 3"], "exited 3: two"),
    (["false"], "exited 1"),
    (["test", "-e", "/none"], "exited 1"),
    (["true"], None),
    (["sh", "-c", "printf 'a\\033[2Jb\\000c'; exit 1"], "exited 1: a [2Jb c"),
])  # fmt: skip
async def test_how_it_ends(stage: Stage, command: list[str], why: str | None) -> None:
    async with stage.engine() as engine:
        assert await run(engine, stage.spawner.home, *command) == why


async def test_a_program_that_is_not_there(stage: Stage) -> None:
    async with stage.engine() as engine:
        found = await run(engine, stage.spawner.home, "/none/page")
        assert found is not None and found.startswith("exited 127 (command not found): ") and "/none/page" in found


async def test_a_command_that_reads_nothing_of_much(stage: Stage) -> None:
    async with stage.engine() as engine:
        assert await run(engine, stage.spawner.home, "true", document={"tags": ["t" * 60000]}) is None


async def test_a_command_that_prints_without_end_is_ended_in_time_and_stored_in_bounds(stage: Stage) -> None:
    folder = stage.spawner.home
    async with stage.engine() as engine:
        found = await run(engine, folder, "yes", timeout_s=1.0)
        assert found is not None and found.startswith("took longer than 1s")
        # The file is cut to what is stored; what was cut off leaves a hole.
        assert (folder / "out-0").stat().st_blocks * 512 < 2**22


async def test_around_a_run(stage: Stage) -> None:
    folder = stage.spawner.home
    around = {
        "before": (("sh", "-c", f"cat > {folder}/before; echo checked"),),
        "after": (("sh", "-c", f"cat > {folder}/after; echo x; exit 2"),),
    }
    async with stage.engine() as engine:
        run_id = engine.add_run(engine.deploy(entrypoint="complete", run=around))
        engine.offer(run_id)
        record = await engine.until_done(run_id)
        assert record.words == "exited 0; run.after: sh: exited 2: x"
        assert json.loads((folder / "before").read_text())["phase"] == "starting"
        assert json.loads((folder / "after").read_text())["api_state"] == "COMPLETED"
        assert "checked" in Path(record.output or "").read_text()
