"""Reads `automations:` of a file, which belong to no deployment, as `prefect automation create --from-file` does."""

from __future__ import annotations

from runnerd.config.placeholders import list_odd_numbers
from runnerd.config.sections import Flaws, Values
from runnerd.config.triggers import TriggerReader
from runnerd.config.yaml_nodes import Map, make_plain
from runnerd.core.json_words import dotted
from runnerd.core.place import Json, Place

FIELD = "by_name"
_LISTS = ("actions", "actions_on_trigger", "actions_on_resolve")


def read_automations(node: Map, flaws: Flaws) -> Values:
    """Read the automations of a file by name; those of a later file replace those of the same name."""
    specs = node.get("automations")
    if not isinstance(specs, list) or flaws.at("automations"):
        return Values()
    found: dict[str, Json] = {}
    places: dict[str, Place] = {}
    for index, spec in enumerate(specs):
        path, name = ("automations", index), spec["name"]
        if name in found:
            message = f"{dotted((*path, 'name'))}: an earlier automation of this file has this name; change one"
            flaws.add((*path, "name"), message, spec.value_place("name"))
        for place, words in list_odd_numbers(spec):
            flaws.add(path, f"{dotted(path)}.{words}", place)
        found[name] = _body(spec, TriggerReader(node, flaws).read(spec["trigger"], (*path, "trigger")))
        places.setdefault(FIELD, spec.place())
    return Values({FIELD: found}, places) if found and not flaws.any_in("automations") else Values()


def _body(spec: Map, trigger: dict[str, Json]) -> Json:
    enabled = spec.get("enabled")
    body = {
        "name": spec["name"],
        "description": spec.get("description") or "",
        "enabled": True if enabled is None else enabled,
        "trigger": trigger,
        **{key: make_plain(spec.get(key)) or [] for key in _LISTS},
    }
    return {**body, "tags": list(spec["tags"])} if spec.get("tags") else body
