"""Turns an error of jsonschema into words: what is wrong with a value, and what would be right. Pure.

jsonschema brings no types, so its errors are `Any` here. `quote` writes a text as its document does: repr for YAML,
json_words.quote_json for JSON. A schema may say what is right in words of its own: `x-expect` for its type and pattern,
`x-pattern` for its pattern only.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from runnerd.core.json_words import TYPES, name_kind, shorten, show_value
from runnerd.core.place import Json

Quote = Callable[[str], str]


class UnknownKey(NamedTuple):
    key: str
    hint: str  # its near match, or empty


def suggest_near_match(word: str, known: Iterable[Json], quote: Quote = repr) -> str:
    """Return `; did you mean 'x'?` for a misspelt word, or an empty text; only texts in `known` are compared."""
    words = [one for one in known if isinstance(one, str)]
    found = [one for one in words if one.lower() == word.lower()]
    for spelling in (word, word.lower().replace("-", "_")):
        found = found or difflib.get_close_matches(spelling, words, n=1)
    return f"; did you mean {quote(found[0])}?" if found else ""


def choose_most_telling(error: Any) -> Any:
    """Replace the error of a value that fits no form of anyOf or oneOf by that of the one form whose type it has."""
    while error.validator in ("anyOf", "oneOf") and error.context:
        near = [one for one in error.context if one.validator != "type" or one.path]
        forms = {one.schema_path[0] for one in near}
        if len(forms) != 1:
            break
        error = near[0]
    return error


def list_unknown_keys(error: Any, quote: Quote = repr) -> list[UnknownKey]:
    """List the keys that an error of the rule additionalProperties is about."""
    known = _schema(error).get("properties") or {}
    patterns = [re.compile(pattern) for pattern in _schema(error).get("patternProperties", ())]
    offered = [key for key, about in known.items() if not (isinstance(about, Mapping) and about.get("deprecated"))]
    unknown = [key for key in error.instance if key not in known and not any(one.search(key) for one in patterns)]
    return [UnknownKey(key, suggest_near_match(key, offered, quote)) for key in unknown]


def is_about_a_key(error: Any) -> bool:
    """Return whether the instance of `error` is a key of the map at its path."""
    steps = list(error.absolute_schema_path)
    return steps[-2:-1] == ["propertyNames"] and steps[-3:-2] != ["properties"]


def describe_fault(error: Any, *, written: str | None = None, quote: Quote = repr, secret: bool = False) -> str:
    """Say what is wrong, to follow the name of the value: `must be text, not 5; quote it`.

    `written`: the value as its document spells it; `secret`: show only the value's kind.
    """
    value = error.instance
    shown = name_kind(value) if secret else written or show_value(value, quote)
    if is_about_a_key(error):
        return f"has {'a key' if secret else f'the key {shown}'}; a key {_requirement(error, quote)}"
    if error.validator == "required":
        return f"needs {quote(_missing_key(error))}"
    if error.validator == "additionalProperties":
        return _unknown(error, quote, secret=secret)
    if error.validator in _EMPTY and error.validator_value == 1:
        return _EMPTY[error.validator]
    requirement = _requirement(error, quote)
    if not requirement.startswith("must "):
        return requirement
    counted = error.validator in ("minItems", "maxItems", "maxProperties")
    found = str(len(value)) if counted and not secret else shown
    return f"{requirement}, not {found}{_hint(error, requirement, quote, secret=secret)}"


_EMPTY = {
    "minLength": "must not be empty",
    "minItems": "must not be an empty list; name one, or remove the key",
}
_NO_BOUND = 10**9  # a maximum that only keeps a number within 32 bits
_LIMITS = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must be at least {} characters long",
    "maxLength": "must be at most {} characters long",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "maxProperties": "must have at most {} keys",
}


def _requirement(error: Any, quote: Quote) -> str:
    """Say what would be right, as `must be ...` where possible."""
    rule, wanted, schema = error.validator, error.validator_value, _schema(error)
    if (expected := _expected(rule, schema)) is not None:
        return f"must be {expected}"
    if rule == "pattern":
        return f"must match the pattern {shorten(quote(wanted))}"
    if kinds := _kinds(error):
        names = dict.fromkeys(TYPES[one] for one in kinds if one != "null" or kinds == ["null"])
        return f"must be {' or '.join(names)}"
    if rule == "enum":
        return f"must be one of {', '.join(_choice(one, quote) for one in wanted if one is not None) or 'null'}"
    if rule == "const":
        return f"must be {_choice(wanted, quote)}"
    if rule in ("minimum", "maximum") and {"minimum", "maximum"} <= schema.keys() and schema["maximum"] < _NO_BOUND:
        return f"must be between {schema['minimum']} and {schema['maximum']}{_unit(schema)}"
    if rule in _LIMITS:
        return _LIMITS[rule].format(wanted) + (_unit(schema) if rule in ("minimum", "maximum") else "")
    return f"does not fit its schema ({rule})" if rule else "is not allowed by its schema"


def _unit(schema: Mapping[str, Json]) -> str:
    """Return the unit of a number that the schema also takes as a duration with a unit."""
    expected = schema.get("x-expect")
    return " seconds" if isinstance(expected, str) and expected.startswith("a duration") else ""


def _expected(rule: str, schema: Mapping[str, Json]) -> str | None:
    """Return what our own schema says that a value is to be."""
    for key, rules in (("x-pattern", ("pattern",)), ("x-expect", ("type", "pattern"))):
        if rule in rules and isinstance(words := schema.get(key), str):
            return words
    return None


def _kinds(error: Any) -> list[str]:
    """List the types that an error is about; several where none of the forms of anyOf or oneOf has the value's type."""
    wanted = error.validator_value
    if error.validator == "type":
        return [wanted] if isinstance(wanted, str) else list(wanted)
    if error.validator in ("anyOf", "oneOf") and all(one.validator == "type" for one in error.context):
        return [name for one in error.context for name in _kinds(one)]
    return []


def _choice(value: Json, quote: Quote) -> str:
    """Show one of the choices; a plain word as one would write it."""
    return value if isinstance(value, str) and re.fullmatch(r"[\w.-]+", value) else show_value(value, quote)


def _hint(error: Any, requirement: str, quote: Quote, *, secret: bool) -> str:
    value = error.instance
    if error.validator == "enum":
        return suggest_near_match(value, error.validator_value, quote) if isinstance(value, str) and not secret else ""
    is_bare = error.validator in ("type", "anyOf", "oneOf") and isinstance(value, bool | int | float)
    return "; quote it" if is_bare and "text" in requirement else ""


def _unknown(error: Any, quote: Quote, *, secret: bool) -> str:
    found = [] if secret else list_unknown_keys(error, quote)
    return "has " + (" and ".join(f"the unknown key {quote(key)}{hint}" for key, hint in found) or "unknown keys")


def _missing_key(error: Any) -> str:
    """Find the key that is missing: jsonschema makes an error of each, and has the key in its message only."""
    return next(str(key) for key in error.validator_value if error.message.startswith(repr(key)))


def _schema(error: Any) -> Mapping[str, Json]:
    """Return the schema that the value does not fit; `false` is one too."""
    return error.schema if isinstance(error.schema, Mapping) else {}
