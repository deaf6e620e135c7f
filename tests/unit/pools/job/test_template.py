"""template.py: what is wrong with a template or its placeholders, said so that it can be corrected; the rest is proven
against Prefect itself (tests/server/test_templates_real.py)."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.core.prefect import ApiState, FlowRun, StateType
from runnerd.pools.job.template import (
    Resolved,
    resolve,
    run_context,
)
from tests.kits.templates import (
    DEFAULT,
    DEPLOYMENT,
    ID,
    POOL,
    RUN,
    Json,
    configuration,
    looked_up,
    problem,
    sources,
)

# --- the template itself --------------------------------------------------------------------------------------

BROKEN = {
    "empty": ({}, "has no job_configuration"),
    "no map": ({"job_configuration": ["x"]}, "has no job_configuration"),
    "variables that are no map": ({"job_configuration": {}, "variables": [1]}, "has a list for its variables"),
    "no schema": (
        {"job_configuration": {}, "variables": {"properties": {"a": {"type": "nmber"}}}},
        "is wrong: variables.properties.a.type is no valid JSON schema: 'nmber' is not",
    ),
    "a required that is no list": (
        {"job_configuration": {}, "variables": {"required": "a", "properties": 1}},
        "is wrong: var",
    ),
    "a reference to nowhere": (
        {"job_configuration": {}, "variables": {"allOf": [{"$ref": "#/definitions/x"}]}},
        'is wrong: variables refers to "#/definitions/x", which is not in it',
    ),
    "a reference to another document": (
        {"job_configuration": {}, "variables": {"properties": {"a": {"$ref": "http://nowhere.invalid/"}}}},
        'is wrong: variables refers to "http://nowhere.invalid/", which is not in it',
    ),
    "an anchor": ({"job_configuration": {}, "variables": {"$ref": "#a"}}, 'is wrong: variables refers to "#a"'),
}


@pytest.mark.parametrize(("template", "words"), BROKEN.values(), ids=BROKEN)
def test_a_template_that_is_none(template: Json, words: str) -> None:
    of = sources({}, template=template, deployment_variables={"a": 1})
    assert problem(of).startswith(f"the base job template of work pool P {words}")


def test_a_template_without_variables() -> None:
    assert configuration(sources({}, template={"job_configuration": {"a": "b"}})) == {"a": "b"}


def test_a_template_that_is_nested_without_end() -> None:
    deep: Json = "{{ a }}"
    for _ in range(5000):
        deep = [deep]
    assert problem(sources({"v": "{{ v }}"}, run_variables={"v": deep})) == (
        f"the job variables are nested too deeply (work pool P's template or {DEPLOYMENT})"
    )


def test_a_depth_at_which_the_looking_up_gives_up_and_the_resolving_would_not() -> None:
    template = {
        "job_configuration": {"env": {"$ref": {"block_document_id": ID}}},
        "variables": {"type": "object", "properties": {"env": {}, "a": {}}},
    }
    ends = set()
    deep: Json = "{{ a }}"
    for levels in range(400):
        deep = {"a": [deep]} if levels % 2 else [deep]
        if levels > 100:
            of = sources({}, template=template, deployment_variables={"a": deep}, run_variables={"a": deep})
            ends.add(type(resolve(of, looked_up(of)[0])).__name__)
    assert "Unresolvable" in ends


# --- placeholders ---------------------------------------------------------------------------------------------

UNKNOWN = {
    "unknown": ("{{ imgae }}", 'unknown placeholder "{{ imgae }}"; did you mean "image"?'),
    "unknown in text": ("x{{ a.b }}y", 'unknown placeholder "{{ a.b }}"'),
    "prefect knows more, a template does not": ("{{ prefect.flow.x }}", 'unknown placeholder "{{ prefect.flow.x }}"'),
    "context": ("{{ ctx.flow.name }}", 'unknown placeholder "{{ ctx.flow.name }}"; it can only stand in name'),
    "environment": ("{{ $HOME }}", 'environment variable "HOME" is not set for the runs of this work pool'),
    "variable": ("{{ prefect.variables.no }}", 'Prefect variable "no" does not exist'),
    "variable in text": ("a {{ prefect.variables.no }}", 'Prefect variable "no" does not exist'),
    "no variable's name": ("{{ prefect.variables... }}", 'Prefect variable ".." does not exist'),
    "block": ("{{ prefect.blocks.secret.no }}", "block secret/no does not exist"),
    "block in text": ("a {{ prefect.blocks.secret.no }}", "block secret/no does not exist"),
    "no block's name": (
        "{{ prefect.blocks.secret }}",
        '"prefect.blocks.secret" names no block; write prefect.blocks.<',
    ),
    "no block's type": (
        "{{ prefect.blocks..a }}",
        '"prefect.blocks..a" names no block; write prefect.blocks.<type>.<name>',
    ),
    "attribute": ("{{ prefect.blocks.json.map.a.c }}", 'block json/map has no "a.c"'),
    "attribute of text": ("{{ prefect.blocks.secret.token.a }}", 'block secret/token has no "a"'),
    "a map in text": (
        "x{{ prefect.blocks.json.map.a }}",
        '"{{ prefect.blocks.json.map.a }}" is a map and cannot stand in t',
    ),
    "a block by its id": (
        {"$ref": {"block_document_id": ID.replace("0", "1")}},
        "the block with the id 1d3b5c1e-5a53-4d2a",
    ),
    "no id": ({"$ref": {"block_document_id": "../../admin"}}, "what block_document_id refers to is no block's id"),
}


@pytest.mark.parametrize(("value", "words"), UNKNOWN.values(), ids=UNKNOWN)
def test_a_placeholder_for_nothing(value: Json, words: str) -> None:
    text = problem(sources({"env": {"FOO": value}}, {"image": {}}))
    assert text.startswith(words)
    assert text.endswith(f" ({POOL}.env.FOO)")
    assert "hunter2" not in text


def test_what_stands_in_a_value_is_said_of_its_variable() -> None:
    of = sources(
        {"env": "{{ env }}", "args": ["x", "{{ m.list }}"], "e": {"E": "{{ m.list[1] }}"}, "f": "at {{ v }}"},
        {"env": {}, "v": {}, "m": {"default": {"list": ["a", "{{ prefect.variables.d }}"]}}},
        deployment_variables={
            "env": {"A": "{{ prefect.blocks.secret.a }}", "B": "{{ prefect.blocks.secret.b }}"},
            "v": "{{ prefect.variables.v }}",
        },
        run_variables={"env": {"B": "{{ prefect.blocks.secret.r }}"}},
    )
    assert problem(of).split("; ") == [
        f'block secret/a does not exist (variable "env.A", {DEPLOYMENT})',
        f'block secret/r does not exist (variable "env.B", {RUN})',
        f'Prefect variable "d" does not exist (variable "m.list[1]", {DEFAULT})',
        f'Prefect variable "v" does not exist (variable "v", {DEPLOYMENT})',
    ]


def test_an_environment_of_both_is_a_template_too() -> None:
    of = sources({"env": {"A": "1"}}, {"env": {}}, deployment_variables={"env": {"B": "{{ no }}"}})
    assert problem(of) == f'unknown placeholder "{{{{ no }}}}" (variable "env.B", {DEPLOYMENT})'


def test_an_env_that_is_no_map_cannot_be_merged() -> None:
    of = sources({"env": {"A": "1"}}, {"env": {}}, run_variables={"env": "A=1"})
    assert problem(of) == f'variable "env" must be a map, not text ({RUN})'
    assert configuration(sources({"env": {"A": "1"}}, run_variables={"env": None})) == {"env": {"A": "1"}}


def test_null_for_env_keeps_the_deployments() -> None:
    of = sources(
        {"env": "{{ env }}"}, {"env": {}}, deployment_variables={"env": {"A": "1"}}, run_variables={"env": None}
    )
    assert configuration(of) == {"env": {"A": "1"}}


def test_a_dotted_key_without_a_place() -> None:
    of = sources({}, run_variables={"a.b": 1, "a.b.c": 2})
    assert problem(of) == f'job variable "a.b.c" has no place: what is above it is no map ({RUN})'


def test_a_dotted_key_of_the_run_wins_over_the_deployments_map() -> None:
    of = sources(
        {"r": "{{ r }}", "env": "{{ env }}", "t": "{{ t }}"},
        deployment_variables={"r": {"a": {"x": 1, "y": 1}}, "env": {"A": "1"}, "t": "text"},
        run_variables={"r.a.x": 2, "env.A": "2", "t.u": 3},
    )
    assert configuration(of) == {"r": {"a": {"x": 2, "y": 1}}, "env": {"A": "2"}, "t": {"u": 3}}


# --- the name -------------------------------------------------------------------------------------------------


def test_the_name_knows_the_run() -> None:
    run = FlowRun(
        id="r-1",
        name="{{ prefect.blocks.secret.token }}",
        flow_id="f-1",
        deployment_id="d-1",
        state=ApiState(type=StateType.SCHEDULED, name="Scheduled"),
        expected_start_time=datetime(2025, 1, 1, tzinfo=UTC),
        parameters={"rows": [3]},
        pool="P",
    )
    context = run_context(run, flow="etl")
    name = "{{ ctx.flow.name }} {{ ctx.flow_run.name }} {{ ctx.flow_run.parameters.rows[0] }} {{ else }}"
    of = sources({"name": "{{ name }}"}, {"name": {}}, run_variables={"name": name}, context=context)
    assert configuration(of) == {"name": "etl {{ prefect.blocks.secret.token }} 3 {{ else }}"}
    assert looked_up(of)[1] == []
    assert configuration(sources({"name": "{{ ctx.flow_run.run_count }}"}, context=context)) == {"name": 0}
    assert context["flow_run"]["expected_start_time"] == "2025-01-01T00:00:00+00:00"


def test_a_name_that_knows_too_much() -> None:
    of = sources({"name": "{{ ctx.flow.nme }}"}, context={"flow": {"name": "etl"}})
    assert problem(of) == f'unknown placeholder "{{{{ ctx.flow.nme }}}}" ({POOL}.name)'


def test_a_variable_called_ctx_is_one() -> None:
    of = sources({"name": "{{ ctx.a }}", "x": "{{ ctx.a }}"}, {"ctx": {"default": {"a": "mine"}}})
    assert configuration(of) == {"name": "mine", "x": "mine"}


def test_what_a_block_says_is_in_no_message() -> None:
    text = problem(sources({"name": "{{ prefect.blocks.secret.lines }}"}))
    assert text.split("; ") == [
        f"unknown placeholder in what a block says ({POOL}.name)",
        f"a Prefect variable that a block names does not exist ({POOL}.name)",
    ]


# --- whatever is given ----------------------------------------------------------------------------------------

TEXTS = st.lists(
    st.sampled_from(
        [
            "{{ a }}",
            "{{ env.A }}",
            "{{ $A }}",
            "{{ prefect.blocks.json.map }}",
            "{{ prefect.variables.region }}",
            "x",
            "{{ no }}",
        ]
    ),
    max_size=2,
).map("".join)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXTS, st.just({"$ref": {"block_document_id": ID}})),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "A", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
MAPS = st.dictionaries(st.sampled_from(["a", "b", "env", "env.A", "a.x", "name"]), VALUES, max_size=4)


@given(configuration=MAPS, defaults=MAPS, deployment=MAPS, run=MAPS)
def test_nothing_given_is_changed_or_shared(configuration: Json, defaults: Json, deployment: Json, run: Json) -> None:
    properties = {name: {"default": value} for name, value in defaults.items()}
    of = sources(
        configuration,
        properties,
        deployment_variables=deployment,
        run_variables=run,
        environment={"A": "1"},
        context={},
    )
    before = json.dumps([of.template, deployment, run])
    found, _ = looked_up(of)
    data = copy.deepcopy({key: getattr(value, "data", value) for key, value in found.items()})
    first = resolve(of, found)
    again = resolve(of, found)
    assert first == again
    if isinstance(first, Resolved):
        spoil(first.configuration)
    assert json.dumps([of.template, deployment, run]) == before
    assert {key: getattr(value, "data", value) for key, value in found.items()} == data


def spoil(value: Json) -> None:
    """Change every container there is."""
    for one in list(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()):
        spoil(one)
    if isinstance(value, (dict, list)):
        value.clear()
