"""process_job.py: what a process job configuration, or a 2.x infrastructure block, comes to."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from runnerd.core.prefect import BlockDocument
from runnerd.pools.job.process_job import ProcessJob, agent_job, process_job, process_template
from runnerd.pools.job.template import Resolved, Sources, Unresolvable, resolve

Json = Any


def job(configuration: Mapping[str, Json]) -> ProcessJob:
    made = process_job(configuration)
    assert isinstance(made, ProcessJob), made
    return made


READ = {
    "nothing": ({}, {}),
    "nulls": (dict.fromkeys(["command", "env", "labels", "name", "stream_output", "working_dir"]), {}),
    "a command": ({"command": "sh -c 'echo \"$A\"' x\\ y"}, {"command": ("sh", "-c", 'echo "$A"', "x y")}),
    "a block's command": ({"command": ["sh", "-c", "a b"]}, {"command": ("sh", "-c", "a b")}),
    "no command": ({"command": " "}, {"command": None}),
    "an empty one": ({"command": []}, {"command": None}),
    "env": (
        {"env": {"A": "a", "B": 1, "C": True, "D": {"x": [1]}, "E": "", "F": None}},
        {"env": {"A": "a", "B": "1", "C": "True", "D": "{'x': [1]}", "E": ""}, "removed": frozenset("F")},
    ),
    "labels": ({"labels": {"a": 1, "b": None}}, {"labels": {"a": "1"}}),
    "a name that is a number": ({"name": 5}, {"name": "5"}),
    "a directory": ({"working_dir": "a/b"}, {"working_dir": "a/b"}),
    "no directory": ({"working_dir": ""}, {"working_dir": None}),
    "quiet": ({"stream_output": False}, {"stream_output": False}),
    "quiet in words": ({"stream_output": "Off"}, {"stream_output": False}),
    "loud in words": ({"stream_output": "1"}, {"stream_output": True}),
    "grace": ({"grace_period_seconds": 5}, {"grace_period_s": 5.0}),
    "grace as text": ({"grace_period_seconds": "0.5"}, {"grace_period_s": 0.5}),
    "what means nothing to a process": ({"image": "x", "auto_remove": True}, {"ignored": ("auto_remove", "image")}),
}


@pytest.mark.parametrize(("configuration", "expected"), READ.values(), ids=READ)
def test_what_is_read(configuration: Json, expected: Json) -> None:
    assert job(configuration) == ProcessJob(**expected)


WRONG = {
    "an open quote": (
        {"command": "'hunter2"},
        '"command" has a quote that is not closed, or ends in a backslash',
    ),
    "a backslash": ({"command": "hunter2\\"}, '"command" has a quote that is not closed, or ends in a backslash'),
    "a map for a command": ({"command": {"a": "hunter2"}}, '"command" must be text, not a map'),
    "a list of all sorts": ({"command": ["a", 1]}, '"command" must be a list of texts'),
    "NUL in the command": ({"command": "a\0hunter2"}, '"command" has a character that no command line can have'),
    "NUL in a variable": ({"env": {"A": "\0hunter2"}}, '"env.A" has a character that no environment variable can have'),
    "half a character": ({"env": {"A": "\ud800"}}, '"env.A" has a character that no environment variable can have'),
    "an empty variable's name": ({"env": {"": "x"}}, '"env" has a name that is empty, or has "="'),
    "an impossible name": ({"env": {"A=hunter2": None}}, '"env" has a name that is empty, or has "="'),
    "env as text": ({"env": "hunter2"}, '"env" must be a map, not text'),
    "env as a list": ({"env": []}, '"env" must be a map, not a list'),
    "labels": ({"labels": 5}, '"labels" must be a map, not a number'),
    "a name": ({"name": ["a"]}, '"name" must be text, not a list'),
    "NUL in a directory": ({"working_dir": "/\0"}, '"working_dir" has a character that it cannot have'),
    "a flag": ({"stream_output": "hunter2"}, '"stream_output" must be true or false, not text'),
    "a flag's number": ({"stream_output": 2}, '"stream_output" must be true or false, not a number'),
    "no grace": ({"grace_period_seconds": 0}, '"grace_period_seconds" must be a number of seconds, more than 0'),
    "endless grace": ({"grace_period_seconds": "inf"}, '"grace_period_seconds" must be a number of seconds'),
    "too much grace": ({"grace_period_seconds": 10**400}, '"grace_period_seconds" must be a number of seconds'),
    "grace in words": ({"grace_period_seconds": "long"}, '"grace_period_seconds" must be a number of seconds'),
    "grace as a flag": ({"grace_period_seconds": True}, '"grace_period_seconds" must be a number of seconds'),
}


@pytest.mark.parametrize(("configuration", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_without_its_value(configuration: Json, words: str) -> None:
    made = process_job(configuration)
    assert isinstance(made, Unresolvable)
    assert made.problem.startswith(words)
    assert "hunter2" not in made.problem


def test_all_that_is_wrong_is_said_with_where_it_came_from() -> None:
    template = {"job_configuration": {"command": "{{ c }}", "env": {"A": "\0", "B": "\0"}, "name": []}}
    resolved = resolve(
        Sources(pool="P", template=template, deployment="e/n", run_variables={"c": "'", "env.B": "\0"}), {}
    )
    assert isinstance(resolved, Resolved)
    made = process_job(resolved.configuration, sources=resolved.sources)
    assert isinstance(made, Unresolvable)
    character = "has a character that no environment variable can have"
    assert made.problem.split("; ") == [
        '"command" has a quote that is not closed, or ends in a backslash (variable "c", the run\'s own job variables)',
        f'"env.A" {character} (work pool P\'s job_configuration.env.A)',
        f'"env.B" {character} (variable "env.B", the run\'s own job variables)',
        '"name" must be text, not a list (work pool P\'s job_configuration.name)',
    ]


def test_secrets_are_in_no_repr() -> None:
    made = job({"command": "run --token hunter2", "env": {"T": "hunter2"}, "name": "n"})
    assert repr(made) == "ProcessJob(name='n', env=<1 variables>, ignored=())"


@pytest.mark.parametrize("major", [2, 3])
def test_the_template_of_a_new_pool_resolves(major: int) -> None:
    given = {"env": {"A": "1"}, "command": None, "working_dir": "/srv"}
    of = Sources(pool="P", template=process_template(major), deployment="e/n", deployment_variables=given)
    resolved = resolve(of, {})
    assert isinstance(resolved, Resolved)
    assert job(resolved.configuration) == ProcessJob(env={"A": "1"}, working_dir="/srv")


# --- the agent of 2.x ---------------------------------------------------------------------------------------


def block(type_slug: str = "process", name: str | None = "local", **data: Json) -> BlockDocument:
    return BlockDocument(id="b-1", name=name, type_slug=type_slug, data={"type": type_slug, **data})


def agents(block: BlockDocument | None, **overrides: Json) -> ProcessJob | Unresolvable:
    return agent_job(block, deployment="etl/nightly", overrides=overrides)


def test_a_process_block_with_overrides() -> None:
    data = {
        "env": {"A": "1", "B": "1"},
        "command": ["python", "x.py"],
        "labels": {},
        "name": None,
        "_block": 1,
        "other": 1,
    }
    given = block(**data, block_type_slug="process", working_dir=None, stream_output=True)
    before = copy.deepcopy(given.data)
    made = agents(given, **{"env.B": "2", "env.C": None, "working_dir": "/srv", "labels": {"a": "b"}, "x.y": {"z": 1}})
    assert made == ProcessJob(
        command=("python", "x.py"),
        env={"A": "1", "B": "2"},
        removed=frozenset("C"),
        working_dir="/srv",
        labels={"a": "b"},
        ignored=("other", "x"),
    )
    assert given.data == before


def test_without_a_block_it_is_a_plain_process() -> None:
    assert agents(None, **{"env.A": "1"}) == ProcessJob(ignored=("env.A",))


def test_another_type_of_block_says_what_to_do() -> None:
    made = agents(block("docker-container", name=None))
    assert made == Unresolvable(
        "deployment etl/nightly has the infrastructure block docker-container/anonymous, and runnerd runs none but"
        " those of type process: serve its work queue with Prefect's own agent, or move the deployment to a work pool"
    )


def test_an_override_without_a_place() -> None:
    made = agents(block(env={"A": "1"}), **{"env.A.x": "1"})
    where = "deployment etl/nightly's job_variables"
    assert made == Unresolvable(f'"env.A.x" has no place: what is above it is no map ({where})')


def test_what_is_wrong_in_a_block_and_its_overrides() -> None:
    overrides = "deployment etl/nightly's job_variables"
    made = agents(block(command="'", env={}, labels=[]), **{"env.A": "\0"})
    assert isinstance(made, Unresolvable)
    assert made.problem.split("; ") == [
        '"command" has a quote that is not closed, or ends in a backslash (infrastructure block process/local)',
        f'"env.A" has a character that no environment variable can have ({overrides})',
        '"labels" must be a map, not a list (infrastructure block process/local)',
    ]
