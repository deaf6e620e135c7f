"""templates.py and jobs.py against both Prefects' own functions: the same templates come to the same."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.prefect import BlockDocument, Variable
from runnerd.pools.job.process_job import ProcessJob, process_job, process_template
from runnerd.pools.job.template import BlockNamed, BlockWithId, Found, Resolved, Sources, VariableNamed, resolve
from tests.kits.prefect_servers import ENVS, NEEDED

PROGRAM = Path(__file__).with_name("prefect_templates.py")
LIMIT_S = 300.0

Json = Any
ID = "0d3b5c1e-5a53-4d2a-9f0e-0c8a3f6f2a11"
TEXT, MAP = {"type": "string"}, {"type": "object"}
BLOCKS = {
    "secret/token": {"value": "s3cret"},
    "json/map": {"value": {"key": {"nested-key": "v"}, "list": [{"list-key": "w"}, 1], "n": None}},
    "aws/creds": {"user": "u", "region": "{{ prefect.variables.region }}", "value": "mine"},
    ID: {"value": {"a": 1}},
}
VARIABLES = {"region": "eu", "image": "img:{{ name }}"}


def case(template: Json, properties: Json | None = None, **given: Json) -> dict[str, Json]:
    """`template` is the job_configuration; what names a type is the schema of its variable, any other a default."""
    made = {
        name: one if isinstance(one, dict) and "type" in one else {"default": one}
        for name, one in (properties or {}).items()
    }
    whole = {"job_configuration": template, "variables": {"type": "object", "properties": made}}
    return {"template": whole, "blocks": BLOCKS, "variables": VARIABLES, **given}


BOTH = {
    "a variable alone keeps its type": case(
        {"a": "{{ a }}", "b": "{{b}}", "c": ["{{ c }}", "x"]}, {"a": 1, "b": True, "c": [1, {"d": None}]}
    ),
    "in text it is text": case(
        {"a": "{{ a }}-{{ b }}-{{ a }}", "c": "<{{ c }}>"}, {"a": 1.5, "b": True, "c": {"k": ["v"]}}
    ),
    "what nobody gives is left out": case(
        {"a": "{{ a }}", "b": "<{{ a }}>", "c": ["{{ a }}", 1], "d": {"e": "{{ a }}"}}, {"a": TEXT}
    ),
    "the run wins over the deployment, and that over the default": case(
        {"a": "{{ a }}", "b": "{{ b }}", "c": "{{ c }}"},
        {"a": 1, "b": 1, "c": 1},
        deployment={"b": 2, "c": 2},
        run={"c": 3},
    ),
    "only env is merged": case(
        {"env": "{{ env }}", "labels": "{{ labels }}"},
        {"env": {"A": "1", "B": "1", "C": "1"}, "labels": {"x": "1"}},
        deployment={"env": {"B": "2", "C": "2"}, "labels": {"y": "2"}},
        run={"env": {"C": "3", "D": None}, "labels": {"z": "3"}},
    ),
    "an env of the template's own": case(
        {"env": {"OWN": "1", "A": "1", "E": "{{ a }}"}},
        {"a": 7, "env": MAP},
        deployment={"env": {"A": "2", "B": "{{ a }}"}},
    ),
    "an env without default is not looked into": case(
        {"env": "{{ env }}"}, {"env": MAP}, deployment={"env": {"B": "{{ a }}"}}
    ),
    "a default env is": case({"env": "{{ env }}"}, {"a": 1, "env": {"A": "{{ a }}"}}, run={"env": {"B": "x{{ a }}"}}),
    "a default env makes an env": case({"command": "x"}, {"env": {"A": "1"}}, run={"env": {"B": "2"}}),
    "no default env, no env": case({"command": "x"}, {"env": MAP}, run={"env": {"B": "2"}}),
    "keys that the template does not know are there for placeholders": case(
        {"a": "{{ b }}"}, {}, deployment={"b": [1]}
    ),
    "and do no harm": case({"a": 1}, {}, deployment={"b": [1]}, run={"c": 2}),
    "inside of a value": case(
        {"a": "{{ m.k[1].x }}", "b": "{{ m.no }}", "c": "<{{ m.k[-1] }}>"}, {"m": {"k": [0, {"x": 5}]}}
    ),
    "environment variables are text": case(
        {"a": "{{ $RT_A }}", "b": "{{ $RT_A }}/{{ a }}"}, {"a": 1}, environment={"RT_A": "5"}
    ),
    "a secret": case({"a": "{{ prefect.blocks.secret.token }}", "b": "{{ prefect.blocks.secret.token.value }}"}),
    "inside of a block": case(
        {
            "a": "{{ prefect.blocks.json.map.value.key }}",
            "b": "{{ prefect.blocks.json.map.key.nested-key }}",
            "c": "{{ prefect.blocks.json.map.value.list[0].list-key }}",
            "d": "{{ prefect.blocks.json.map.n }}",
            "e": "{{ prefect.blocks.json.map }}",
        }
    ),
    "a block of several attributes": case(
        {
            "a": "{{ prefect.blocks.aws.creds.user }}",
            "b": "{{ prefect.blocks.aws.creds }}",
            "c": "{{ prefect.blocks.aws.creds.value }}",
        }
    ),
    "a variable in a block": case({"a": "{{ prefect.blocks.aws.creds.region }}"}),
    "a block by its id": case(
        {"a": {"$ref": {"block_document_id": ID}}, "b": ["{{ c }}"]}, {"c": {"$ref": {"block_document_id": ID}}}
    ),
    "Prefect's variables": case(
        {"a": "{{ prefect.variables.region }}", "b": "<{{ prefect.variables.region }}-{{ prefect.variables.region }}>"}
    ),
    "what a variable holds is not looked into": case(
        {"a": "{{ prefect.variables.image }}", "b": "x {{ prefect.variables.image }}"}
    ),
    "lookups in values": case(
        {"a": "{{ a }}", "env": "{{ env }}", "b": "x{{ b }}"},
        {"a": "{{ prefect.blocks.secret.token }}", "b": "{{ prefect.variables.region }}", "env": MAP},
        run={"env": {"T": "{{ prefect.blocks.secret.token }}", "R": "{{ prefect.variables.region }}"}},
    ),
    "a placeholder made of a value": case({"a": "{{ prefect.variables.{{ v }} }}"}, {"v": "region"}),
    "values are not looked into for variables": case({"a": "{{ a }}", "b": "<{{ a }}>"}, {"a": "{{ b }}", "b": 1}),
    "what is no placeholder": case(
        {"a": "{{ }}", "b": "{{ a b }}", "c": "{a}", "d": "{{ a|b }}", "e": "{% a %}", "f": None, "g": 1.5}
    ),
    "an explicit null": case({"a": "{{ a }}", "b": "<{{ a }}>"}, {"a": 1}, run={"a": None}),
    "spaces and lines around a placeholder": case({"a": "{{ a }}\n", "b": " {{ a }}", "c": "{{\n a\t}}"}, {"a": 1}),
}
THREE = {  # what 2.20 does not have, or does wrong
    "dotted keys": case(
        {"env": "{{ env }}", "r": "{{ r }}"},
        {"env": {"A": "0"}, "r": {"x": 0}},
        deployment={"env.A": "1", "r.cpu.max": 2},
        run={"env.B": "3", "r.cpu.min": 1},
    ),
    "what is written without dots wins": case(
        {"env": "{{ env }}"}, {"env": MAP}, run={"env.A": "1", "env.B": "1", "env": {"A": "2"}}
    ),
    "a dotted key beside the deployment's": case(
        {"env": "{{ env }}"}, {"env": MAP}, deployment={"env": {"A": "1"}}, run={"env.B": "2"}
    ),
    "the template's own env and a default": case(
        {"env": {"OWN": "1", "A": "1"}}, {"env": {"A": "2"}}, run={"env": {"B": "3"}}
    ),
    "a default of null is none": case({"a": "{{ a }}", "b": "<{{ a }}>"}, {"a": None}),
    "blocks in text": case(
        {"a": "{{ prefect.blocks.secret.token }}@{{ prefect.blocks.aws.creds.user }}/{{prefect.variables.region}}"},
        {"a": 1},
    ),
    "the name": case(
        {"name": "{{ name }}"},
        {"name": "{{ ctx.flow.name }}-{{ ctx.flow_run.count }}-{{ prefect.variables.region }}"},
        context={"flow": {"name": "{{ prefect.blocks.secret.token }}"}, "flow_run": {"count": 3}},
    ),
    "the whole name": case({"name": "{{ name }}"}, {"name": "{{ ctx.flow.name }}"}, context={"flow": {"name": "etl"}}),
}
JOBS: list[dict[str, Json]] = [
    {},
    {
        "command": "python -m x 'a b'",
        "env": {"A": "1", "B": None},
        "labels": {"l": "1"},
        "name": "n",
        "working_dir": "/srv",
    },
    {"command": "", "env": {"A": 1, "B": 1.5}, "stream_output": False},
    {"command": None, "name": None, "working_dir": None, "stream_output": "off"},
    {"stream_output": "Yes", "custom": 1, "working_dir": "relative/path"},
    {"stream_output": 0, "labels": {}},
]


@cache
def prefect_says(major: int) -> Json:
    """One process for everything that is asked of a major."""
    python = ENVS / f"prefect{major}" / "bin" / "python"
    if not python.exists():
        pytest.fail(f"there is no {python}: run `make test` once, or tests/envs/make.sh prefect{major}")
    cases = list((BOTH if major == 2 else BOTH | THREE).values())
    environment = {key: os.environ[key] for key in NEEDED if key in os.environ} | {"DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [python, "-W", "ignore", PROGRAM],
        input=json.dumps({"cases": cases, "jobs": JOBS}),
        env={**environment, "HOME": "/nonexistent", "PREFECT_HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return {**answer, "cases": dict(zip(BOTH | THREE, answer["cases"], strict=False))}


def found(one: dict[str, Json]) -> Found:
    blocks: dict[Json, Json] = {}
    for key, data in one["blocks"].items():
        slug, _, name = key.partition("/")
        lookup = BlockNamed(slug, name) if name else BlockWithId(key)
        blocks[lookup] = BlockDocument(id=key, name=name, type_slug=slug, data=data)
    return {**blocks, **{VariableNamed(n): Variable(name=n, value=value) for n, value in one["variables"].items()}}


def ours(one: dict[str, Json]) -> Json:
    sources = Sources(
        pool="p",
        template=one["template"],
        deployment="etl/nightly",
        deployment_variables=one.get("deployment", {}),
        run_variables=one.get("run", {}),
        environment=one.get("environment", {}),
        context=one.get("context", {}),
    )
    result = resolve(sources, found(one))
    assert isinstance(result, Resolved), result
    return result.configuration


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("major", [2, 3])
def test_as_both_prefects_resolve_it(name: str, major: int) -> None:
    assert prefect_says(major)["cases"][name] == {"configuration": ours(BOTH[name])}


@pytest.mark.parametrize("name", THREE)
def test_as_prefect_3_resolves_it(name: str) -> None:
    assert prefect_says(3)["cases"][name] == {"configuration": ours(THREE[name])}


@pytest.mark.parametrize("major", [2, 3])
def test_the_template_of_a_process_pool_is_prefects(major: int) -> None:
    theirs, made = prefect_says(major)["template"], process_template(major)
    for template in (theirs, made):
        for one in template["variables"]["properties"].values():
            one.pop("description")
    assert made == theirs


@pytest.mark.parametrize("number", range(len(JOBS)))
@pytest.mark.parametrize("major", [2, 3])
def test_a_job_is_what_prefect_reads(number: int, major: int) -> None:
    theirs, made = prefect_says(major)["jobs"][number], process_job(JOBS[number])
    assert isinstance(made, ProcessJob), made
    assert {**made.env, **dict.fromkeys(made.removed)} == theirs["env"]
    assert (made.command is None) == (theirs["command"] is None)
    kept = {
        "labels": made.labels,
        "name": made.name,
        "stream_output": made.stream_output,
        "working_dir": made.working_dir,
    }
    assert kept == {key: theirs[key] for key in kept}
