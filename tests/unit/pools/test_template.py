"""templates.py: what is wrong with a template or with job variables, said so that it can be mended; the rest is proven
against Prefect itself (tests/server/test_templates_real.py)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.core.prefect import ApiState, BlockDocument, FlowRun, StateType, Variable
from runnerd.pools.job.schema import schema_flaws, schema_problem
from runnerd.pools.job.template import (
    BlockNamed,
    BlockWithId,
    Found,
    Lookup,
    Resolved,
    Sources,
    Unresolvable,
    VariableNamed,
    lookups,
    resolve,
    run_context,
)

Json = Any
ID = "0d3b5c1e-5a53-4d2a-9f0e-0c8a3f6f2a11"
DEFAULT = "the default of work pool P's template"
DEPLOYMENT = "deployment etl/nightly's job_variables"
RUN = "the run's own job variables"
POOL = "work pool P's job_configuration"


def block(**data: Json) -> BlockDocument:
    return BlockDocument(id=ID, name="b", type_slug="t", data=data)


KNOWN: dict[Lookup, BlockDocument | Variable] = {
    BlockNamed("secret", "token"): block(value="hunter2"),
    BlockNamed("secret", "lines"): block(value="{{ ctx.hunter2 }} {{ prefect.variables.hunter2 }}"),
    BlockNamed("json", "map"): block(value={"a": {"b": 1}}),
    BlockNamed("aws", "creds"): block(user="u", region="{{ prefect.variables.region }}"),
    BlockWithId(ID): block(cpu="hunter2"),
    VariableNamed("region"): Variable(name="region", value="eu"),
    VariableNamed("yes"): Variable(name="yes", value=True),
    VariableNamed("four"): Variable(name="four", value=4),
}


def sources(
    configuration: Json, properties: Json | None = None, *, schema: Json | None = None, **changes: Json
) -> Sources:
    whole = {"type": "object", "properties": properties or {}, **(schema or {})}
    given = {"pool": "P", "template": {"job_configuration": configuration, "variables": whole}}
    return Sources(**{**given, "deployment": "etl/nightly", **changes})


def looked_up(of: Sources) -> tuple[Found, list[frozenset[Lookup]]]:
    """All that is asked for, as a launcher finds it; and what was asked for at a time."""
    found: dict[Lookup, BlockDocument | Variable | None] = {}
    rounds = []
    while wanted := lookups(of, found):
        rounds.append(wanted)
        found |= {one: KNOWN.get(one) for one in wanted}
    return found, rounds


def outcome(of: Sources) -> Resolved | Unresolvable:
    return resolve(of, looked_up(of)[0])


def problem(of: Sources) -> str:
    result = outcome(of)
    assert isinstance(result, Unresolvable), result
    return result.problem


def configuration(of: Sources) -> Mapping[str, Json]:
    result = outcome(of)
    assert isinstance(result, Resolved), result
    return result.configuration


# --- values against the schema ------------------------------------------------------------------------------

NULLABLE = {"anyOf": [{"type": "string"}, {"type": "null"}]}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
WRONG = {
    "a type": ({"type": "number"}, "many", 'must be a number, not "many"'),
    "a whole number": ({"type": "integer"}, 1.5, "must be a whole number, not 1.5"),
    "a boolean is no number": ({"type": "integer"}, True, "must be a whole number, not true"),
    "text": ({"type": "string"}, 5, "must be text, not 5; quote it"),
    "a list's inside is not shown": ({"type": "string"}, ["pw"], "must be text, not a list"),
    "one of two types": ({"type": ["string", "integer"]}, {}, "must be text or a whole number, not a map"),
    "null beside a type is not named": (NULLABLE, 5, "must be text, not 5; quote it"),
    "only null": ({"type": "null"}, 5, "must be null, not 5"),
    "a minimum": ({"type": "number", "minimum": 1}, 0, "must be at least 1, not 0"),
    "a maximum": ({"maximum": 4}, 5, "must be at most 4, not 5"),
    "exclusive limits": ({"exclusiveMinimum": 0, "exclusiveMaximum": 9}, 0, "must be more than 0, not 0"),
    "a length": ({"maxLength": 2}, "abc", 'must be at most 2 characters long, not "abc"'),
    "a long value is shortened": ({"type": "number"}, "x" * 99, 'must be a number, not "' + "x" * 59 + "..."),
    "a choice": (
        {"enum": ["Always", "Never", None]},
        "Alway",
        'must be one of Always, Never, not "Alway"; did you mean "Always"? (',
    ),
    "a choice that is nothing like it": ({"enum": [1, 2]}, "z", 'must be one of 1, 2, not "z" ('),
    "a key is missing": (POINT, {}, 'needs "x"'),
    "too many keys": ({"additionalProperties": False}, {"a": 1}, 'has the unknown key "a" ('),
    "several forms": (
        {"anyOf": [POINT, {"maxProperties": 0}]},
        {"x": "a"},
        "does not fit its schema (anyOf)",
    ),
    "no form": ({"not": {}}, 1, "does not fit its schema (not)"),
}


SLOW = "^(a+)+$"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": SLOW}, "a" * 60 + "!"),
        ({"patternProperties": {SLOW: {}}, "additionalProperties": False}, {"a" * 60 + "!": 1}),
    ],
    ids=["of a text", "of a map's keys"],
)
def test_patterns_are_not_matched_here(schema: Json, value: Json) -> None:
    """They may take for ever: these would, and the test with them."""
    whole = {"properties": {"x": schema}}
    assert schema_flaws(whole, {"x": value}) == []
    assert schema_problem(whole) is None


@pytest.mark.parametrize(("schema", "value", "words"), WRONG.values(), ids=WRONG)
def test_a_value_that_the_schema_does_not_allow(schema: Json, value: Json, words: str) -> None:
    of = sources({"v": "{{ v }}"}, {"v": schema}, deployment_variables={"v": value})
    assert problem(of).startswith(f'variable "v" {words}')
    assert problem(of).endswith(f"({DEPLOYMENT})")


INSIDE = {
    "in a map": (POINT, {"x": "a"}, 'variable "v.x" must be a whole number, not "a"'),
    "in the one form that has its type": ({"anyOf": [POINT, {"type": "null"}]}, {"x": "a"}, 'variable "v.x" must be'),
    "in a list": ({"items": {"type": "string"}}, ["a", 1], 'variable "v[1]" must be text, not 1; quote it ('),
    "in a tuple of old": ({"items": [{"type": "string"}]}, [1], 'variable "v[0]" must be text, not 1; quote it ('),
    "by a reference": (
        {"allOf": [{"$ref": "#/definitions/point"}]},
        {"x": "a"},
        'variable "v.x" must be a whole number',
    ),
}


@pytest.mark.parametrize(("schema", "value", "words"), INSIDE.values(), ids=INSIDE)
def test_the_part_that_is_wrong_is_named(schema: Json, value: Json, words: str) -> None:
    of = sources({}, {"v": schema}, schema={"definitions": {"point": POINT}}, deployment_variables={"v": value})
    assert problem(of).startswith(words)


FINE = {
    "null for what may be left out": ({"type": "string"}, None),
    "null inside": ({"type": "object", "properties": {"x": {"type": "integer"}}}, {"x": None}),
    "null that is the type": ({"type": "object", "properties": {"x": {"type": "null"}}}, {"x": None}),
    "whatever the schema says nothing about": (True, {"x": None}),
    "a key called like a keyword": ({"properties": {"$ref": {"type": "string"}, "items": {}}}, {"$ref": "there"}),
    "a name for a schema": ({"$id": "http://nowhere.invalid/x", "type": "string"}, "a"),
    "a default that looks like a reference": ({"default": {"$ref": "http://nowhere.invalid"}}, 1),
    "an escaped reference": ({"$ref": "#/$defs/a~1b%25"}, 1),
    "itself": ({"properties": {"v": {"$ref": "#"}}}, {"v": {}}),
}


@pytest.mark.parametrize(("schema", "value"), FINE.values(), ids=FINE)
def test_what_is_allowed(schema: Json, value: Json) -> None:
    of = sources({"v": "{{ v }}"}, {"v": schema}, schema={"$defs": {"a/b%": {}}}, run_variables={"v": value})
    assert configuration(of) == {"v": value}


ENV = {"additionalProperties": {"type": "string"}}
NUMBER = {"type": "number"}


def test_who_gave_a_value_is_told_of_each() -> None:
    of = sources(
        {},
        {
            "a": {**NUMBER, "default": "x"},
            "b": NUMBER,
            "c": NUMBER,
            "env": ENV,
        },
        deployment_variables={"b": "y", "c": "z", "env": {"A": 1, "B": 1}},
        run_variables={"c": "r", "env.B": 2, "env": {"C": "3"}},
    )
    problems = [
        f'variable "a" must be a number, not "x" ({DEFAULT})',
        f'variable "b" must be a number, not "y" ({DEPLOYMENT})',
        f'variable "c" must be a number, not "r" ({RUN})',
        f'variable "env.A" must be text, not 1; quote it ({DEPLOYMENT})',
        f'variable "env.B" must be text, not 2; quote it ({RUN})',
    ]
    assert problem(of) == "; ".join(problems)


def test_a_required_variable_that_nobody_gives() -> None:
    of = sources(
        {"image": "{{ image }}"},
        {"image": {"type": "string"}, "x": {"default": None}},
        schema={"required": ["image", "x"]},
    )
    assert problem(of) == (
        f'variable "image" is required and neither the run nor {DEPLOYMENT} gives it'
        " (work pool P's template, which has no default for it)"
    )


def test_null_is_no_value_for_a_required_variable() -> None:
    of = sources({}, {"image": {"type": "string"}}, schema={"required": ["image"]}, run_variables={"image": None})
    assert problem(of) == f'variable "image" must be text, not null ({RUN})'


def test_what_the_schema_says_of_all_variables_together() -> None:
    of = sources({}, {"a": {}}, schema={"minProperties": 1, "additionalProperties": False}, run_variables={"z": 1})
    words = "does not fit its schema (minProperties)"
    assert problem(of) == f"the job variables: {words} (work pool P's template)"


def test_a_value_may_fit_once_it_was_looked_up() -> None:
    number = {"type": "number", "maximum": 4}
    of = sources({"v": "{{ v }}"}, {"v": number}, run_variables={"v": "{{ prefect.variables.four }}"})
    assert configuration(of) == {"v": 4}
    assert configuration(sources({}, {"v": number}, run_variables={"v": "{{ prefect.variables.four }}"})) == {}
    assert configuration(sources({}, {"v": number}, run_variables={"v": ["{{ prefect.variables.no }}"]})) == {}


@pytest.mark.parametrize(
    "value",
    [
        "{{ prefect.blocks.secret.token }}",
        "{{ prefect.variables.yes }}",
        {"$ref": {"block_document_id": ID}},
        [1, "{{ prefect.blocks.json.map }}"],
    ],
)
def test_what_was_looked_up_is_not_shown(value: Json) -> None:
    of = sources({"v": "{{ v }}"}, {"v": {"type": "number"}}, deployment_variables={"v": value})
    assert problem(of).startswith('variable "v" must be a number, not ')
    assert problem(of).endswith(f" ({DEPLOYMENT})")
    choice = sources({"v": "{{ v }}"}, {"v": {"enum": ["hunter22"]}}, deployment_variables={"v": value})
    for text in (problem(of), problem(choice)):
        assert "hunter2 " not in text and "did you mean" not in text


# --- the template itself ------------------------------------------------------------------------------------

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


# --- placeholders -------------------------------------------------------------------------------------------

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


# --- the name -----------------------------------------------------------------------------------------------


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


# --- looking up ---------------------------------------------------------------------------------------------


def test_what_is_looked_up_when() -> None:
    of = sources(
        {"a": "{{ prefect.blocks.aws.creds.region }}/", "b": ["{{ b }}"], "c": "{{ prefect.variables.four }}"},
        {"b": {"default": {"$ref": {"block_document_id": ID}}}, "unused": {"default": ["{{ $NO }}"]}},
    )
    found, rounds = looked_up(of)
    aws, four, region = BlockNamed("aws", "creds"), VariableNamed("four"), VariableNamed("region")
    assert rounds == [frozenset({aws, BlockWithId(ID), four}), frozenset({region})]
    result = resolve(of, found)
    assert isinstance(result, Resolved)
    assert result.configuration == {"a": "eu/", "b": [{"cpu": "hunter2"}], "c": 4}
    assert result.sources == {"a": f"{POOL}.a", "b": f"{POOL}.b", "c": f"{POOL}.c"}
    with pytest.raises(ValueError, match="looked up"):
        resolve(of, {})


def test_a_result_says_where_each_key_came_from() -> None:
    of = sources(
        {"command": "{{ command }}", "env": {"A": "1"}, "name": "x"},
        {"command": {"default": "c"}, "env": {}},
        run_variables={"env": {"B": "2"}},
    )
    result = outcome(of)
    assert isinstance(result, Resolved)
    assert result.sources == {
        "command": f'variable "command", {DEFAULT}',
        "env": f"{POOL}.env",
        "env.A": f"{POOL}.env.A",
        "env.B": f'variable "env.B", {RUN}',
        "name": f"{POOL}.name",
    }


def test_secrets_are_in_no_repr() -> None:
    of = sources(
        {"a": "{{ prefect.blocks.secret.token }}"}, run_variables={"b": "hunter2"}, environment={"C": "hunter2"}
    )
    assert repr(of) == "Sources(pool='P', deployment='etl/nightly')"
    assert repr(outcome(of)) == "Resolved(a)"


# --- whatever is given --------------------------------------------------------------------------------------

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
