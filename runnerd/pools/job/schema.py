"""Job variables against the schema in a work pool's base job template, in words that say what would be right. Pure.

Invariants: of a value that was looked up only the kind is told; no reference leads outside the schema, for following
one would be a request to wherever the template says. jsonschema is imported only here and only when values are
checked, because it costs several MiB.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from runnerd.core.json_words import TYPES, dotted
from runnerd.core.place import Json
from runnerd.pools.job.variables import Nothing, Path, kind, near_words, reach, shortened, show


class Flaw(NamedTuple):
    """A value that the schema does not allow, and what would be right."""

    path: Path
    words: str


def schema_problem(schema: Mapping[str, Json]) -> str | None:
    """What is wrong with the schema itself."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(_prepared(schema, nulls=False))
    except SchemaError as exc:
        return f"{dotted(['variables', *exc.absolute_path])} is no valid JSON schema: {shortened(exc.message)}"
    astray = sorted({reference for reference in _references(schema) if not _leads_somewhere(reference, schema)})
    return f'variables refers to "{shortened(astray[0])}", which is not in it' if astray else None


def schema_flaws(schema: Mapping[str, Json], values: Mapping[str, Json], *, secret: Collection[str] = ()) -> list[Flaw]:
    """What is wrong with `values`; of those named in `secret` only the kind is told."""
    from jsonschema import Draft202012Validator

    required = set(schema.get("required", ()))
    checked = {key: value for key, value in values.items() if value is not None or key in required}
    errors = Draft202012Validator(_prepared(schema)).iter_errors(checked)
    flaws = (_flaw(_telling(error), secret) for error in errors)
    return sorted(set(flaws), key=lambda flaw: [str(step) for step in flaw.path])


_BY_NAME = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_DATA = {"default", "const", "enum", "examples", "example"}
# A pattern may take for ever, and with it this daemon and each that takes over. The server has matched it before.
_COSTLY = {"pattern", "patternProperties"}


def _prepared(schema: Json, *, top: bool = True, nulls: bool = True) -> Json:
    """The schema as Prefect's server takes it: null is allowed for what is not required, and items may be a list.

    Required variables are looked for elsewhere, and `$id` would have references looked for elsewhere.
    """
    if isinstance(schema, list):
        return [_prepared(one, top=False, nulls=nulls) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    left_out = {"$id", "id", "$schema", *_COSTLY, *(("required",) if top else ())}
    if "patternProperties" in schema:  # without them nobody knows which are additional
        left_out |= {"additionalProperties", "unevaluatedProperties"}
    ours: dict[str, Json] = {}
    for key, value in schema.items():
        if key in left_out:
            continue
        if key in _BY_NAME and isinstance(value, Mapping):
            ours[key] = {name: _prepared(one, top=False, nulls=nulls) for name, one in value.items()}
        else:
            name = "prefixItems" if key == "items" and isinstance(value, list) else key
            ours[name] = value if key in _DATA else _prepared(value, top=False, nulls=nulls)
    if nulls:
        _allow_null(ours, schema.get("required"))
    return ours


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


# --- words --------------------------------------------------------------------------------------------------


def _telling(error: Any) -> Any:
    """Of a value that fits no form of anyOf or oneOf: what is wrong with it in the one form whose type it has."""
    while error.validator in ("anyOf", "oneOf") and error.context:
        near = [one for one in error.context if one.validator != "type" or one.path]
        forms = {one.schema_path[0] for one in near}
        if len(forms) != 1:
            break
        error = near[0]
    return error


def _flaw(error: Any, secret: Collection[str]) -> Flaw:
    path: Path = tuple(error.absolute_path)
    shown = kind(error.instance) if path and path[0] in secret else show(error.instance)
    return Flaw(path, _words(error, shown))


def _words(error: Any, shown: str) -> str:
    rule, wanted = error.validator, error.validator_value
    if rule == "type" or (rule in ("anyOf", "oneOf") and all(one.validator == "type" for one in error.context)):
        kinds = _kinds(wanted) if rule == "type" else [k for one in error.context for k in _kinds(one.validator_value)]
        names = dict.fromkeys(TYPES[one] for one in kinds if one != "null" or kinds == ["null"])
        return f"must be {' or '.join(names)}, not {shown}"
    if rule == "enum":
        hint = near_words(error.instance, wanted) if isinstance(error.instance, str) and '"' in shown else ""
        return f"must be one of {', '.join(show(one) for one in wanted if one is not None)}, not {shown}{hint}"
    if rule == "required":
        missing = [show(key) for key in wanted if key not in error.instance]
        return f"needs {', '.join(missing)}"
    if rule == "additionalProperties":
        return "has keys that the template does not allow"
    if rule in _LIMITS:
        return f"{_LIMITS[rule].format(wanted)}, not {shown}"
    return f"does not fit what the template says of it ({rule})"


_LIMITS = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must be at least {} characters long",
    "maxLength": "must be at most {} characters long",
    "const": "must be {!r}",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
}


def _kinds(wanted: Json) -> list[str]:
    return [wanted] if isinstance(wanted, str) else list(wanted)
