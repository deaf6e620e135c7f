"""prefect.yaml as a drop-in: each key is carried, or named with its place; placeholders likewise.

tests/server/test_prefect_yaml_keys.py compares the table with what both Prefects read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.settings import Config, Deployment
from tests.kits.config import ConfigDir
from tests.kits.prefect_yaml_keys import TABLES, Key


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def written(table: str, key: Key) -> str:
    """A file with the key; its deployment is in a work pool."""
    parts = {name: key.written if name == table else "" for name in TABLES}
    lines = [
        parts["file"],
        "deployments:",
        "- name: a",
        "  entrypoint: flows/etl.py:nightly",
        f"  {parts['deployment']}",
        f"  work_pool: {{name: etl, {parts['work_pool']}}}",
    ]
    if table == "concurrency_limit":
        lines.append(f"  concurrency_limit: {{limit: 2, {key.written}}}")
    if table == "schedule":
        lines.append(f"  schedules: [{{{key.written}}}]")
    return "\n".join(lines) + "\n"


def field_of(deployment: Deployment, path: str) -> Any:
    found: Any = deployment
    for name, index in re.findall(r"(\w+)(?:\[(\d)\])?", path):
        found = getattr(found, name)
        found = found[int(index)] if index else found
    return found


def load(etc: ConfigDir, text: str) -> Config:
    etc.write("conf.d/a.yaml", text)
    return etc.load()


@pytest.mark.parametrize(("table", "name"), [(table, name) for table, keys in TABLES.items() for name in keys])
def test_a_key_is_carried_or_named(etc: ConfigDir, table: str, name: str) -> None:
    key = TABLES[table][name]
    config = load(etc, written(table, key))
    said = [*config.problems, *config.warnings]
    if key.named is not None:
        (only,) = said
        assert only.message.startswith(key.named), only.message
        assert only.place is not None and only.place.line > 0
        at = written(table, key).splitlines()[only.place.line - 1][only.place.column - 1 :]
        assert at.startswith(name)
        return
    assert said == []
    (deployment,) = config.deployments
    if key.carried is not None:
        path, value = key.carried
        assert field_of(deployment, path) == value
    else:
        assert key.unused


def in_pool(line: str) -> str:
    return f"deployments:\n- name: a\n  entrypoint: flows/etl.py:nightly\n  work_pool: {{name: etl}}\n  {line}\n"


OUTPUTS = "push: [{x.push_image: {id: push}}]\n"
OUTPUT = "it is an output of a build or push step, and runnerd runs none of these; write the value"
PLACEHOLDERS = {
    "version: '{{ push.sha }}'": ("version", OUTPUT),
    "version: '{{ nothing }}'": ("version", "nothing on this host has this name; write the value"),
    "tags: ['{{ $USER }}']": (
        "tags[0]",
        "the environment of prefect deploy is not that of this host; write the value",
    ),
    "parameters: {a: [1, '{{ prefect.variables.x }}']}": (
        "parameters.a[1]",
        "a variable is looked up by prefect deploy only; write its value, or read it in the flow",
    ),
    "description: by {{ prefect.blocks.secret.x }}": (
        "description",
        "a block is looked up by prefect deploy only; load it in the flow",
    ),
    "pull: [{x.pull: {tag: '{{ push.tag }}'}}]": ("pull[0].x.pull.tag", OUTPUT),
}


@pytest.mark.parametrize("line", PLACEHOLDERS)
def test_a_placeholder_that_nobody_fills_in_is_named(etc: ConfigDir, line: str) -> None:
    (problem,) = load(etc, OUTPUTS + in_pool(line)).problems
    path, why = PLACEHOLDERS[line]
    name = line[line.index("{{") : line.index("}}") + 2]
    assert problem.message == f"{path}: cannot use {name}: {why}"
    assert problem.place is not None and problem.place.line == 6


@pytest.mark.parametrize(
    ("variable", "why"),
    [
        ("'{{ prefect.variables.tag }}'", None),
        ("'{{ prefect.blocks.secret.x }}'", None),
        ("'{{ $HOME }}/x'", None),
        ("'{{ ctx.flow_run.name }}'", None),
        ("'{{ push.image }}'", "it is an output of a build or push step"),
        ("'{{ image }}'", "nothing on this host has this name"),
    ],
)
def test_job_variables_keep_what_the_worker_fills_in(etc: ConfigDir, variable: str, why: str | None) -> None:
    pool = f"work_pool: {{name: etl, job_variables: {{image: {variable}}}}}"
    config = load(etc, OUTPUTS + f"deployments:\n- name: a\n  entrypoint: flows/etl.py:nightly\n  {pool}\n")
    if why is None:
        assert (config.problems, config.deployments[0].job_variables) == ((), {"image": variable.strip("'")})
    else:
        (problem,) = config.problems
        assert why in problem.message and problem.place is not None and problem.place.line == 5


def test_unknown_placeholders_in_parameters_and_descriptions_are_the_flows_own(etc: ConfigDir) -> None:
    (found,) = load(etc, OUTPUTS + in_pool("parameters: {a: 'Dear {{ name }}', b: '{{ pushed.x }}'}")).deployments
    assert found.parameters == {"a": "Dear {{ name }}", "b": "{{ pushed.x }}"}


def test_what_only_a_pool_has_is_named_without_one(etc: ConfigDir) -> None:
    pool = "{work_queue_name: high, job_variables: {image: 'etl:3', env: {A: 1}}}"
    config = load(etc, f"deployments:\n- name: a\n  entrypoint: flows/etl.py:nightly\n  work_pool: {pool}\n")
    why = "has no effect without work_pool.name; name the pool, or leave it out"
    assert etc.words(config.warnings) == [
        f"conf.d/a.yaml:4:15: work_pool.work_queue_name {why}",
        f"conf.d/a.yaml:4:54: work_pool.job_variables.image {why}",
    ]
    (deployment,) = config.deployments
    assert (deployment.work_pool, deployment.run.environment) == (None, {"A": "1"})


def test_limits_of_a_run_are_refused_in_a_pool(etc: ConfigDir) -> None:
    config = load(etc, in_pool("run: {python: /usr/bin/python3, limit: 2, memory_max: 1G}"))
    why = "has no effect in a work pool; set it in run: of the pool in pools:, or leave it out"
    assert etc.words(config.problems) == [f"conf.d/a.yaml:5:45: run.memory_max {why}"]


def test_a_step_with_more_arguments_is_run(etc: ConfigDir) -> None:
    step = "{prefect.deployments.steps.set_working_directory: {directory: /, requires: x}}"
    config = load(etc, f"deployments:\n- name: a\n  entrypoint: flows/etl.py:nightly\n  pull: [{step}]\n")
    assert config.problems == ()
    assert config.deployments[0].runs_pull_steps


def test_no_pull_steps_are_none(etc: ConfigDir) -> None:
    (found,) = load(etc, "pull: [{x.pull: {}}]\n" + in_pool("pull: []")).deployments
    assert found.pull_steps == ()
    (found,) = load(etc, in_pool("")).deployments
    assert found.pull_steps is None
