"""Deployments with a command: inspected without a process, launched without Prefect, with files of their own."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.commands import Command, CommandRules
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import Config, Schedule, key_of
from runnerd.deployments.command_inspection import inspect_command
from runnerd.deployments.command_launching import CommandLauncher, OwnLauncher
from runnerd.deployments.launching import FlowLauncher
from runnerd.deployments.parameters import find_unknown_parameters
from runnerd.deployments.registry import Entry, Registry
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.deployments.sources.pulling import Pulled
from runnerd.deployments.sources.run_code import RunCode
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess
from runnerd.prefect_api.dialect import deployment_body
from runnerd.processes.protocol import Hello
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import NOON, URL, a_deployment, a_record, fake_api, flow_run, settings
from tests.kits.sources import FakePuller, a_keeper, a_source, a_tree, no_sources

LEVEL = {"properties": {"level": {"type": "integer", "default": 2}}}
DEFAULTED = {"properties": {**LEVEL["properties"], "how": {"default": "full"}}}
RULES = CommandRules(retries=1)
NOBODY = "00000000-0000-0000-0000-000000000000"  # a run that Prefect does not have
MADE = "dddddddd-0000-4000-8000-000000000001"


class FakeLink:
    """A link to a spawner that says this of itself."""

    def __init__(self, *, stdin: bool) -> None:
        self.hello: Hello | None = Hello(version="1", pid=1, limits={}, why=None, stdin=stdin)


class World:
    """A deployment `backup` with a command, a server with one run of it, and the launcher."""

    def __init__(
        self,
        folder: Path,
        *,
        parameters: dict[str, Any],
        stdin: bool = True,
        sources: SourceKeeper | None = None,
        **command: Any,
    ) -> None:
        self.folder = folder
        self.prefect = FakePrefect(major=3)
        self.prefect.deployments[MADE] = {"id": MADE, "name": "backup", "flow_id": MADE, "tags": [], "paused": False}
        self.registry = Registry()
        made = {"argv": ("backup", "--level={{ level }}"), "rules": RULES, **command}
        run = {"environment": {"OWN": "1", "PARAM_LEVEL": "mine"}, "python": "/venv/bin/python"}
        self.deployment = a_deployment("backup", entrypoint="", command=Command(**made), run=run)
        self.run_id = self.prefect.add_run(MADE, parameters=parameters)
        self.registry.put(Entry(deployment=self.deployment, flow="backup", deployment_id=MADE))
        code = RunCode(sources=sources or no_sources())
        environments = Environments(environ={"LANG": "C", "SECRET": "s"}, calls=BoundedCalls())
        commands = CommandLauncher(
            api=fake_api(self.prefect, now=lambda: NOON),
            registry=self.registry,
            code=code,
            link=FakeLink(stdin=stdin),  # type: ignore[arg-type]
            environments=environments,
            calls=BoundedCalls(),
            output_dir=str(folder),
        )
        access = ApiAccess(url=URL, environment={"PREFECT_API_KEY": "k"})
        flows = FlowLauncher(
            registry=self.registry,
            code=code,
            access=lambda: access,
            output_dir=str(folder),
            environments=environments,
            worker_name=lambda: "h",
        )
        self.launcher = OwnLauncher(flows=flows, commands=commands, of=self.registry.by_id)
        self.record = a_record(self.run_id, deployment_id=MADE, command=RULES)

    async def start(self) -> LaunchSpec | str | Unanswered:
        return (await self.launcher.prepare(self.record)).start

    async def spec(self) -> LaunchSpec:
        found = await self.start()
        assert isinstance(found, LaunchSpec), found
        return found


async def test_nothing_of_prefect_is_in_it(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"level": 3})
    spec = await world.spec()
    assert spec.argv == ("backup", "--level=3")
    assert not [name for name in spec.environment if name.startswith("PREFECT")]
    assert "SECRET" not in spec.environment
    assert "/venv/bin" not in spec.environment["PATH"]
    assert (spec.intents, spec.stdin, spec.fork_of) == (False, None, None)
    own = {"OWN": "1", "PARAM_LEVEL": "3", "RUNNERD_RUN_ID": world.run_id, "RUNNERD_ATTEMPT": "1"}
    assert own.items() <= spec.environment.items(), "a parameter wins over the file's own variable"
    assert (await world.launcher.prepare(world.record)).warm is None


async def test_the_rules_are_those_of_the_start(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"level": 3})
    prepared = await world.launcher.prepare(replace(world.record, command=CommandRules()))
    assert prepared.record_fields == {"command": RULES}


async def test_its_parameters_are_on_its_stdin(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"a": [1]}, stdin=True, parameter_schema=LEVEL)
    world.registry.put(
        Entry(
            deployment=replace(
                world.deployment, command=replace(world.deployment.command, stdin="parameters")  # type: ignore[type-var]
            ),
            flow="backup",
            deployment_id=MADE,
        )
    )  # fmt: skip
    spec = await world.spec()
    assert spec.stdin == f"{spec.output}.stdin"
    assert json.loads(Path(spec.stdin).read_text()) == {"level": 2, "a": [1]}
    assert stat.S_IMODE(os.stat(spec.stdin).st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == [os.path.basename(f"{spec.output}{end}") for end in (".sent", ".stdin")]


async def test_a_second_preparation_forgets_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"level": 3})
    spec = await world.spec()
    progress = Path(f"{spec.output}.sent")
    progress.write_text('{"offset": 5}')
    await world.spec()
    assert progress.read_text() == '{"offset": 5}'


async def test_a_plan_is_what_is_started_and_writes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"level": 3})
    planned = replace(flow_run(world.prefect, world.run_id), id=NOBODY, parameters={"level": 7})
    prepared = await world.launcher.prepare_plan(replace(world.record, id=NOBODY), planned)
    assert os.listdir(tmp_path) == []
    assert isinstance(prepared.start, LaunchSpec)
    assert prepared.start.argv == ("backup", "--level=7")
    assert set(prepared.start.environment) == set((await world.spec()).environment)
    assert (prepared.layers["run"]["OWN"], "HOME" in prepared.layers["base"]) == ("1", True)


async def test_an_old_spawner_is_named(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"level": 1}, stdin=False)
    changed = replace(world.deployment.command, stdin="parameters")  # type: ignore[type-var]
    world.registry.put(Entry(deployment=replace(world.deployment, command=changed), flow="backup", deployment_id=MADE))
    assert "older version" in str(await world.start())


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "parameter 'level' of its command has no value"),
        ({"level": 1, "a b": 1}, "parameter 'a b' cannot be a variable: only letters, digits and _ can"),
        ({"level": "\0"}, "parameter 'level' has a NUL character, which no argument and no variable can have"),
    ],
)
async def test_parameters_that_cannot_be_passed_on(tmp_path: Path, parameters: dict[str, Any], words: str) -> None:
    world = World(tmp_path, parameters=parameters)
    assert await world.start() == words
    assert os.listdir(tmp_path) == []


async def test_a_disk_that_is_full_is_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path / "none", parameters={"level": 3})
    found = await world.start()
    assert isinstance(found, Unanswered) and "No such file" in found.words


async def test_a_deployment_that_has_no_command_any_more(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"level": 3})
    world.registry.remove(key_of(world.deployment))
    assert await world.start() == "its deployment is not configured on this host any more"
    flow = a_deployment("backup")
    world.registry.put(Entry(deployment=flow, flow="backup", deployment_id=MADE))
    assert await world.start() == "its deployment has no command any more"
    world.record = replace(world.record, command=None)
    assert (await world.spec()).argv[0] == flow.run.python


async def test_a_run_that_was_deleted(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"level": 3})
    del world.prefect.runs[world.run_id]
    assert await world.start() == "the run does not exist any more"


async def test_what_is_run_after_it_has_its_parameters_as_variables_and_outlives_the_files(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"level": 4}, parameter_schema=DEFAULTED, stdin=True)
    world.registry.remove(key_of(world.deployment))
    spec = await world.launcher.prepare_hooks(world.record)
    assert isinstance(spec, LaunchSpec)
    assert (spec.argv, spec.stdin, spec.environment["OWN"]) == (("backup",), None, "1")
    assert (spec.environment["PARAM_LEVEL"], spec.environment["PARAM_HOW"]) == ("4", "full")
    assert not [name for name in spec.environment if name.startswith("PREFECT")]
    assert os.listdir(tmp_path) == []


async def test_what_is_run_after_it_waits_for_its_parameters_unless_the_run_is_gone(tmp_path: Path) -> None:
    world = World(tmp_path, parameters={"level": 4})
    world.prefect.down = True
    assert isinstance(await world.launcher.prepare_hooks(world.record), Unanswered)
    world.prefect.down = False
    del world.prefect.runs[world.run_id]
    spec = await world.launcher.prepare_hooks(world.record)
    assert isinstance(spec, LaunchSpec)
    assert spec.environment["PARAM_LEVEL"] == "mine"


A, B = Pulled(tree=a_tree("a")), Pulled(tree=a_tree("b"))


async def test_it_runs_in_the_tree_of_its_source_and_a_plan_pulls_nothing(tmp_path: Path) -> None:
    puller = FakePuller(A)
    keeper = a_keeper(puller)
    world = World(tmp_path, parameters={"level": 3}, sources=keeper)
    deployment = replace(world.deployment, source=a_source())
    world.registry.put(Entry(deployment=deployment, flow="backup", deployment_id=MADE))
    planned = await world.launcher.prepare_plan(world.record, flow_run(world.prefect, world.run_id))
    assert planned.start == "its code cannot be pulled: this is under way"
    assert puller.wanted == []
    keeper.take(Config(settings=settings(), deployments=(deployment,)))
    pulling = asyncio.create_task(keeper.run())
    await asyncio.sleep(1)
    prepared = await world.launcher.prepare(world.record)
    assert isinstance(prepared.start, LaunchSpec)
    assert prepared.start.working_directory == A.tree.directory
    started = replace(world.record, **prepared.record_fields)
    assert started.source is not None and started.source["commit"] == A.tree.commit
    puller.answer = B
    await keeper.pull(deployment, afresh=True)
    hooks = await world.launcher.prepare_hooks(started)
    planned = await world.launcher.prepare_plan(world.record, flow_run(world.prefect, world.run_id))
    assert isinstance(hooks, LaunchSpec) and isinstance(planned.start, LaunchSpec)
    assert (hooks.working_directory, planned.start.working_directory) == (A.tree.directory, B.tree.directory)
    pulling.cancel()
    await asyncio.wait([pulling])


# --- inspection ---------------------------------------------------------------------------------------------


def test_a_schema_of_the_file_is_registered() -> None:
    command = Command(argv=("x",), parameter_schema={"type": "object", **LEVEL, "required": ["level"]})
    found = inspect_command(a_deployment("a", command=command, flow_name="f"), command)
    assert (found.flow_name, found.hooks) == ("f", ())
    assert found.parameter_schema["required"] == ["level"]
    assert found.parameter_schema["properties"] == {
        "level": {"title": "level", "position": 0, "type": "integer", "default": 2}
    }


def test_without_one_any_value_of_the_declared_parameters_is_taken() -> None:
    command = Command(argv=("x",))
    schedules = (Schedule(cron="@daily", parameters={"b": 1}),)
    deployment = a_deployment("a", command=command, parameters={"c": 3}, schedules=schedules)
    found = inspect_command(deployment, command)
    assert found.flow_name == "a"
    assert found.parameter_schema["properties"] == {
        "b": {"title": "b", "position": 0},
        "c": {"title": "c", "position": 1, "default": 3},
    }
    assert find_unknown_parameters(deployment, found) == ()


def test_a_parameter_beside_the_schema_is_named() -> None:
    command = Command(argv=("x",), parameter_schema=LEVEL)
    deployment = a_deployment("a", command=command, parameters={"levle": 3})
    (flaw,) = find_unknown_parameters(deployment, inspect_command(deployment, command))
    assert flaw.message == "parameters.levle: parameter_schema has no property 'levle'; did you mean 'level'?"


@pytest.mark.parametrize("major", [2, 3])
def test_nobody_else_is_offered_its_code(major: int) -> None:
    command = Command(argv=("x",))
    deployment = a_deployment("a", entrypoint="", command=command)
    body = deployment_body(deployment, inspect_command(deployment, command), major=major)
    assert (body.json["entrypoint"], body.json["pull_steps"]) == (None, [])  # type: ignore[union-attr]


def test_an_edited_command_is_the_same_deployment() -> None:
    one = a_deployment("a", entrypoint="", command=Command(argv=("x",)))
    other = replace(one, command=Command(argv=("y",)), run=replace(one.run, python="/other"))
    assert key_of(one) == key_of(other)
    assert key_of(one) != key_of(replace(other, flow_name="f"))
