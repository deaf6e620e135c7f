"""Checks values against schema.json and returns every flaw with its place.

Invariants: one SchemaCheck compiles its validators once; jsonschema is imported only when one is made, because it
costs several MiB. What the schema cannot say (exactly one of cron, interval and rrule; overflow; this host) is
checked elsewhere.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

from runnerd.config.messages import Flaw, describe
from runnerd.config.yaml_nodes import Map
from runnerd.core.place import Json

ITEMS = (
    "deployments",
    "pools",
    "scripts",
)  # lists whose entries are checked one by one: a broken one concerns only itself
_FILE = os.path.join(os.path.dirname(__file__), "schema.json")


def read_schema() -> str:
    """Read the JSON Schema of runnerd.yaml and of drop-ins, for editors and `runnerctl config schema`."""
    with open(_FILE, encoding="utf-8") as file:
        return file.read()


class SchemaCheck:
    """The compiled schema."""

    def __init__(self) -> None:
        from jsonschema import Draft7Validator
        from jsonschema.validators import extend

        schema = json.loads(read_schema())
        definitions = schema.pop("definitions")
        top = _inlined(schema, definitions)
        items = {section: top["properties"][section].pop("items") for section in ITEMS}
        types = Draft7Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})
        parts = _Parts()
        validator = extend(Draft7Validator, {"properties": parts.properties, "items": parts.items}, type_checker=types)
        self._top = validator(top)
        self._items = {section: validator(schema) for section, schema in items.items()}

    def check_file(self, node: Map) -> list[Flaw]:
        """List the flaws of a file, without those inside its deployments, pools and scripts."""
        return _flaws(self._top.iter_errors, node)

    def check_item(self, section: str, node: Json) -> list[Flaw]:
        """List the flaws of one entry of `section`, which is one of ITEMS."""
        return _flaws(self._items[section].iter_errors, node)


class _Parts:
    """Implements the rules `properties` and `items` with one validator for each part of the schema.

    jsonschema itself makes a new validator for every value; with a thousand deployments that is most of a load's time.
    """

    def __init__(self) -> None:
        self._validators: dict[int, Any] = {}

    def properties(self, validator: Any, properties: dict[str, Json], instance: Json, _schema: Json) -> Iterator[Any]:
        if isinstance(instance, dict):
            for key, value in instance.items():
                if key in properties:
                    for error in self._descend(validator, properties[key], value, key):
                        error.schema_path.appendleft(key)
                        yield error

    def items(self, validator: Any, items: Json, instance: Json, _schema: Json) -> Iterator[Any]:
        if isinstance(instance, list):
            for index, value in enumerate(instance):
                yield from self._descend(validator, items, value, index)

    def _descend(self, validator: Any, part: Json, value: Json, step: str | int) -> Iterator[Any]:
        found = self._validators.get(id(part))  # the parts live as long as the schema that holds them
        if found is None:
            found = self._validators[id(part)] = validator.evolve(schema=part)
        for error in found.iter_errors(value):
            error.path.appendleft(step)
            yield error


def _flaws(errors: Callable[[Json], Iterator[Any]], node: Json) -> list[Flaw]:
    return [flaw for error in errors(node) for flaw in describe(error, node)]


def _inlined(schema: Json, definitions: Json) -> Json:
    """Resolve each $ref (following them is most of a check's time), and drop the rules that only editors use."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    for_editors = ("uniqueItems", *(("if", "then") if "if" in schema else ()))  # checked elsewhere, in better words
    return {key: _inlined(value, definitions) for key, value in schema.items() if key not in for_editors}


def _is_integer(_checker: object, value: object) -> bool:
    """Refuse 1.0, an integer to JSON Schema: as a count it is more likely a mistake."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_checker: object, value: object) -> bool:
    return _is_integer(_checker, value) or (isinstance(value, float) and math.isfinite(value))
