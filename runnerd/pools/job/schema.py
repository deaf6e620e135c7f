"""Checks job variables against the schema in a work pool's base job template. Pure.

Invariants: of a value that was looked up only the kind is shown; no reference leads outside the schema, because
following one would send a request to an address of the template's choice. All of this may take for ever, patterns too:
it runs in the process of side.py. jsonschema is imported only when values are checked, because it costs several MiB.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from runnerd.core.json_words import dotted, quote_json, shorten
from runnerd.core.place import Json
from runnerd.core.schema_words import choose_most_telling, describe_fault
from runnerd.pools.job.variables import Nothing, Path, reach


class SchemaFlaw(NamedTuple):
    """A value that the schema does not allow, and what would be right."""

    path: Path
    words: str


def schema_problem(schema: Mapping[str, Json]) -> str | None:
    """Say what is wrong with the schema itself; None when it is valid."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    required = schema.get("required", [])  # left out below
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return "variables.required is no valid JSON schema: it must be a list of names"
    try:
        Draft202012Validator.check_schema(_prepared(schema, nulls=False))
    except SchemaError as exc:
        return f"{dotted(['variables', *exc.absolute_path])} is no valid JSON schema: {shorten(exc.message)}"
    astray = sorted({reference for reference in _references(schema) if not _leads_somewhere(reference, schema)})
    return f'variables refers to "{shorten(astray[0])}", which is not in it' if astray else None


def schema_flaws(
    schema: Mapping[str, Json], values: Mapping[str, Json], *, secret: Collection[str] = ()
) -> list[SchemaFlaw]:
    """List the flaws of `values`; of those named in `secret` only the kind is shown."""
    from jsonschema import Draft202012Validator

    required = set(schema.get("required", ()))
    checked = {key: value for key, value in values.items() if value is not None or key in required}
    errors = Draft202012Validator(_prepared(schema)).iter_errors(checked)
    flaws = (_flaw(choose_most_telling(error), secret) for error in errors)
    return sorted(set(flaws), key=lambda flaw: ([str(step) for step in flaw.path], flaw.words))


_BY_NAME = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_DATA = {"default", "const", "enum", "examples", "example"}
_PATTERNS = {"pattern", "patternProperties"}


def _prepared(schema: Json, *, top: bool = True, nulls: bool = True) -> Json:
    """Rewrite the schema as Prefect's server reads it: null is allowed for what is not required, items may be a list.

    `required` is left out at the top, where template.py checks it, and `$id`, because references would be resolved
    against it.
    """
    if isinstance(schema, list):
        return [_prepared(one, top=False, nulls=nulls) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    left_out = {"$id", "id", "$schema", *(("required",) if top else ()), *_unmatchable(schema)}
    rewritten: dict[str, Json] = {}
    for key, value in schema.items():
        if key in left_out:
            continue
        if key in _BY_NAME and isinstance(value, Mapping):
            rewritten[key] = {name: _prepared(one, top=False, nulls=nulls) for name, one in value.items()}
        else:
            name = "prefixItems" if key == "items" and isinstance(value, list) else key
            rewritten[name] = value if key in _DATA else _prepared(value, top=False, nulls=nulls)
    if nulls:
        _allow_null(rewritten, schema.get("required"))
    return rewritten


def _unmatchable(schema: Mapping[str, Json]) -> set[str]:
    """List the keywords to leave out because they have no regular expression of Python's: the server matches none."""
    found = {key for key in _PATTERNS & schema.keys() if not all(map(_compiles, _patterns(schema[key])))}
    # Without patternProperties every key would count as additional.
    return found | ({"additionalProperties", "unevaluatedProperties"} if "patternProperties" in found else set())


def _patterns(value: Json) -> list[Json]:
    return list(value) if isinstance(value, Mapping) else [value]


def _compiles(pattern: Json) -> bool:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    except TypeError:
        return True  # check_schema() reports what is no text
    return True


def _allow_null(schema: dict[str, Json], required: Json) -> None:
    needed = required if isinstance(required, list) else []
    properties = schema.get("properties")
    for name, one in properties.items() if isinstance(properties, dict) else ():
        if name not in needed and isinstance(one, dict) and isinstance(one.get("type"), str):
            one["type"] = [one["type"], "null"] if one["type"] != "null" else "null"


def _leads_somewhere(reference: str, schema: Mapping[str, Json]) -> bool:
    document, _, pointer = reference.partition("#")
    place: Json = schema
    for part in pointer.split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        place = reach(place, (key,))
    return not document and pointer[:1] in ("", "/") and not isinstance(place, Nothing)


def _references(schema: Json) -> Iterator[str]:
    if isinstance(schema, list):
        for one in schema:
            yield from _references(one)
    elif isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in {"$ref", "$dynamicRef", "$recursiveRef"} and isinstance(value, str):
                yield value
            elif key in _BY_NAME and isinstance(value, Mapping):
                yield from _references(list(value.values()))
            elif key not in _DATA:
                yield from _references(value)


def _flaw(error: Any, secret: Collection[str]) -> SchemaFlaw:
    path: Path = tuple(error.absolute_path)
    return SchemaFlaw(path, describe_fault(error, quote=quote_json, secret=bool(path) and path[0] in secret))
