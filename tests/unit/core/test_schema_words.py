"""core/schema_words.py: what a message says of each rule of a JSON schema, and of a misspelt word."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from runnerd.core.json_words import quote_json
from runnerd.core.schema_words import (
    choose_most_telling,
    describe_fault,
    is_about_a_key,
    list_unknown_keys,
    suggest_near_match,
)

Json = Any
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}


def error_of(schema: Json, value: Json) -> Any:
    (error,) = jsonschema.Draft202012Validator(schema).iter_errors(value)
    return choose_most_telling(error)


RULES = {
    "a type": (PORT, "x", "must be a whole number, not 'x'"),
    "types": ({"type": ["string", "array", "null"]}, {}, "must be text or a list, not a map"),
    "only null": ({"type": "null"}, True, "must be null, not true"),
    "text without quotes": ({"type": "string"}, False, "must be text, not false; quote it"),
    "a type in words": ({"type": "string", "x-expect": "a size such as 2G"}, 5, "must be a size such as 2G, not 5"),
    "no type, in words": ({"type": "string", "x-expect": 5}, [], "must be text, not a list"),
    "a pattern in words": ({"pattern": "^a$", "x-expect": "an a"}, "b", "must be an a, not 'b'"),
    "a pattern": ({"pattern": "^a$"}, "b", "must match the pattern '^a$', not 'b'"),
    "a choice": ({"enum": ["run", "skip", None]}, "skp", "must be one of run, skip, not 'skp'; did you mean 'skip'?"),
    "choices of all sorts": ({"enum": ["", "a b", 1, {}]}, 2, "must be one of '', 'a b', 1, a map, not 2"),
    "one choice": ({"const": "plain text"}, 5, "must be 'plain text', not 5"),
    "a range": (PORT, 0, "must be between 1 and 65535, not 0"),
    "a minimum": ({"minimum": 1}, 0, "must be at least 1, not 0"),
    "a maximum": ({"maximum": 4}, 5, "must be at most 4, not 5"),
    "above": ({"exclusiveMinimum": 0}, 0, "must be more than 0, not 0"),
    "below": ({"exclusiveMaximum": 1}, 1.5, "must be less than 1, not 1.5"),
    "steps": ({"multipleOf": 5}, 7, "must be a multiple of 5, not 7"),
    "no text": ({"minLength": 1}, "", "must not be empty"),
    "too short": ({"minLength": 2}, "a", "must be at least 2 characters long, not 'a'"),
    "too long": ({"maxLength": 1}, "ab", "must be at most 1 characters long, not 'ab'"),
    "no items": ({"minItems": 1}, [], "must not be an empty list; name one, or remove the key"),
    "too few": ({"minItems": 2}, ["pw"], "must have at least 2 items, not 1"),
    "too many": ({"maxItems": 1}, ["pw", "pw"], "must have at most 1 items, not 2"),
    "a missing key": ({"required": ["a", "b"]}, {"a": 1}, "needs 'b'"),
    "an unknown key": (
        {"properties": {"memory_max": True}, "additionalProperties": False},
        {"memory-max": 1},
        "has the unknown key 'memory-max'; did you mean 'memory_max'?",
    ),
    "unknown keys": (
        {"additionalProperties": False},
        {"a": 1, "b": 2},
        "has the unknown key 'a' and the unknown key 'b'",
    ),
    "a key": (
        {"propertyNames": {"maxLength": 1}},
        {"ab": 1},
        "has the key 'ab'; a key must be at most 1 characters long",
    ),
    "one form": ({"anyOf": [{"type": "null"}, {"type": "string", "minLength": 1}]}, "", "must not be empty"),
    "no form's type": ({"oneOf": [{"type": "null"}, {"type": "array"}]}, "a", "must be a list, not 'a'"),
    "two forms": ({"oneOf": [True, {"type": "string"}]}, "a", "does not fit its schema (oneOf)"),
    "no value at all": ({"properties": {"a": False}}, {"a": 1}, "is not allowed by its schema"),
    "anything else": ({"not": {}}, 1, "does not fit its schema (not)"),
}


@pytest.mark.parametrize(("schema", "value", "words"), RULES.values(), ids=RULES)
def test_what_is_said_of_each_rule(schema: Json, value: Json, words: str) -> None:
    assert describe_fault(error_of(schema, value)) == words


def test_a_value_is_shown_as_it_was_written_or_as_its_document_writes_it() -> None:
    assert describe_fault(error_of(PORT, 23.5), written="0027.5") == "must be a whole number, not 0027.5"
    error = error_of({"enum": ["Never"]}, "nevr")
    assert describe_fault(error, quote=quote_json) == 'must be one of Never, not "nevr"; did you mean "Never"?'


SECRETS = {
    "a value": (PORT, "pw", "must be a whole number, not text"),
    "a near match": ({"enum": ["hunter2"]}, "hunter22", "must be one of hunter2, not text"),
    "how many": ({"minItems": 2}, ["pw"], "must have at least 2 items, not a list"),
    "keys": ({"additionalProperties": False}, {"pw": 1}, "has unknown keys"),
    "a key": ({"propertyNames": {"maxLength": 1}}, {"pw": 1}, "has a key; a key must be at most 1 characters long"),
}


@pytest.mark.parametrize(("schema", "value", "words"), SECRETS.values(), ids=SECRETS)
def test_of_a_secret_only_the_kind_is_told(schema: Json, value: Json, words: str) -> None:
    assert describe_fault(error_of(schema, value), secret=True) == words


def test_a_value_under_a_key_that_is_called_like_a_rule_is_no_key() -> None:
    error = error_of({"properties": {"propertyNames": {"type": "string"}}}, {"propertyNames": 5})
    assert not is_about_a_key(error)


def test_unknown_keys_are_those_that_no_pattern_takes_and_no_deprecated_key_is_offered() -> None:
    schema = {
        "properties": {"schedule": {"deprecated": True}},
        "patternProperties": {"^x-": True},
        "additionalProperties": False,
    }
    assert list_unknown_keys(error_of(schema, {"x-mine": 1, "schedul": 2})) == [("schedul", "")]


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("memory", ["memory_max", "nice"], "; did you mean 'memory_max'?"),
        ("xyz", ["memory_max", "nice"], ""),
        ("term", ["TERM", "tern"], "; did you mean 'TERM'?"),
        ("CPU-QUOTA", ["cpu_quota", 5, None], "; did you mean 'cpu_quota'?"),
    ],
)
def test_near_matches(word: str, known: list[Json], hint: str) -> None:
    assert suggest_near_match(word, known) == hint
