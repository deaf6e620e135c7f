"""schema.py: values that the schema of a template does not allow, and who gave them."""

from __future__ import annotations

import pytest

from runnerd.pools.job.schema import schema_flaws, schema_problem
from tests.kits.templates import (
    DEFAULT,
    DEPLOYMENT,
    ID,
    RUN,
    Json,
    configuration,
    problem,
    sources,
)

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
    "another pattern": ({"pattern": "^[a-z]+$"}, "A1", 'must match the pattern "^[a-z]+$", not "A1"'),
    "a key of another pattern": (
        {"patternProperties": {"^a": {}}, "additionalProperties": False},
        {"b": 1},
        'has the unknown key "b"',
    ),
    "several forms": (
        {"anyOf": [POINT, {"maxProperties": 0}]},
        {"x": "a"},
        "does not fit its schema (anyOf)",
    ),
    "no form": ({"not": {}}, 1, "does not fit its schema (not)"),
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": r"^\p{L}+$"}, "a"),
        ({"patternProperties": {"(": {"type": "string"}}, "additionalProperties": False}, {"a": 1}),
    ],
    ids=["of a text", "of a map's keys"],
)
def test_patterns_that_python_does_not_know(schema: Json, value: Json) -> None:
    """Prefect's server is in Python too, and matches none of them."""
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
