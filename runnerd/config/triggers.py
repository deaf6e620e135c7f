"""Reads the triggers of a deployment: each becomes one map with every key that its kind has, as Prefect fills them in.

What Prefect ignores is refused with its place: a key that does not belong to the kind of its trigger, among others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from runnerd.config.messages import Path, find_value_place
from runnerd.config.sections import Flaws, read_duration
from runnerd.config.yaml_nodes import Map, make_plain
from runnerd.core.json_words import dotted, show_value
from runnerd.core.place import Json
from runnerd.core.settings import FOREVER_S
from runnerd.core.units import format_duration

PROACTIVE_MIN_S = 10.0
METRIC_MIN_S = 300.0
# Of the automation and of the run, whatever the kind of the trigger.
OF_AUTOMATION = ("name", "description", "enabled", "parameters", "job_variables", "schedule_after")
_OF_KIND = {
    "event": ("match", "match_related", "after", "expect", "for_each", "posture", "threshold", "within"),
    "metric": ("match", "match_related", "posture", "metric"),
    "compound": ("triggers", "within", "require"),
    "sequence": ("triggers", "within"),
}
_NEEDED = {"event": (), "metric": ("metric",), "compound": ("triggers", "require"), "sequence": ("triggers",)}
_ISO = re.compile(r"P(?:(\d{1,6}(?:\.\d{1,6})?)D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,9}(?:\.\d{1,6})?)S)?)?")


def read_triggers(node: Map, name: str, flaws: Flaws) -> tuple[Json, ...]:
    """Read the `triggers` of the deployment `name`; those that have a flaw are left out."""
    specs = node.get("triggers")
    if not isinstance(specs, list) or flaws.at("triggers"):
        return ()
    found = []
    for index, spec in enumerate(specs):
        part = TriggerReader(node, flaws)
        body = part.read(spec, ("triggers", index), outermost=True)
        found.append({**_about_automation(part, spec, ("triggers", index), name), **body})
    return tuple(found) if not flaws.any_in("triggers") else ()


def _about_automation(part: TriggerReader, spec: Map, path: Path, name: str) -> dict[str, Json]:
    enabled = spec.get("enabled")
    return {
        "name": spec.get("name") or f"{name}__automation_{int(path[-1]) + 1}",
        "description": spec.get("description") or "",
        "enabled": True if enabled is None else enabled,
        "parameters": make_plain(spec.get("parameters")),
        "job_variables": make_plain(spec.get("job_variables")),
        "schedule_after": part.seconds(spec, "schedule_after", path) or 0.0,
    }


class TriggerReader:
    """Reads what triggers wait for. `root` is the map in which the paths of messages begin."""

    def __init__(self, root: Map, flaws: Flaws) -> None:
        self._root = root
        self._flaws = flaws

    def read(self, spec: Map, path: Path, *, outermost: bool = False) -> dict[str, Json]:
        """Read what one trigger waits for."""
        kind = kind_of(spec)
        allowed = (*_OF_KIND[kind], "type", *(OF_AUTOMATION if outermost else ()))
        for key, value in spec.items():
            if key not in allowed and value is not None:
                self._add((*path, key), f"does not belong to a trigger of type {kind}; remove it", key_of=spec)
        for key in _NEEDED[kind]:
            if spec.get(key) is None:
                message = f"{dotted(path)}: a trigger of type {kind} needs {key!r}"
                self._flaws.add(path, message, spec.place())
        return {"type": kind, **_READERS[kind](self, spec, path)}

    def event(self, spec: Map, path: Path) -> dict[str, Json]:
        posture, threshold = spec.get("posture") or "Reactive", spec.get("threshold")
        if posture == "Metric":
            self._add((*path, "posture"), "Metric goes with type metric only")
        return {
            **_resources(spec),
            **{key: sorted(set(spec.get(key) or ())) for key in ("after", "expect", "for_each")},
            "posture": posture,
            "threshold": 1 if threshold is None else threshold,
            "within": self._within(spec, path, posture),
        }

    def _within(self, spec: Map, path: Path, posture: str) -> float:
        within = self.seconds(spec, "within", path) or 0.0
        if posture != "Proactive":
            return within
        if 0 < within < PROACTIVE_MIN_S:
            self._add((*path, "within"), f"must be at least {format_duration(PROACTIVE_MIN_S)} for posture Proactive")
        return within or PROACTIVE_MIN_S

    def metric(self, spec: Map, path: Path) -> dict[str, Json]:
        if spec.get("posture") not in (None, "Metric"):
            self._add((*path, "posture"), "must be Metric for type metric")
        query, at = spec.get("metric"), (*path, "metric")
        if not isinstance(query, Map):
            return {}
        times = {}
        for key in ("range", "firing_for"):
            seconds = self.seconds(query, key, at)
            times[key] = METRIC_MIN_S if seconds is None else seconds
            if times[key] < METRIC_MIN_S:
                self._add((*at, key), f"must be at least {format_duration(METRIC_MIN_S)}")
        plain = {key: query[key] for key in ("name", "threshold", "operator")}
        return {**_resources(spec), "posture": "Metric", "metric": {**plain, **times}}

    def sequence(self, spec: Map, path: Path) -> dict[str, Json]:
        inner = spec.get("triggers") or ()
        triggers = [self.read(one, (*path, "triggers", index)) for index, one in enumerate(inner)]
        return {"triggers": triggers, "within": self.seconds(spec, "within", path)}

    def compound(self, spec: Map, path: Path) -> dict[str, Json]:
        require, count = spec.get("require"), len(spec.get("triggers") or ())
        if isinstance(require, int) and require > count:
            self._add((*path, "require"), f"must be at most {count}, the number of its triggers")
        return {**self.sequence(spec, path), "require": require}

    def seconds(self, holder: Map, key: str, path: Path) -> float | None:
        """Read a duration, also one in ISO 8601 as Prefect takes them; None where there is none."""
        value = holder.get(key)
        if value is None:
            return None
        try:
            seconds = _read_seconds(value)
        except ValueError as error:
            self._add((*path, key), str(error))
            return None
        if seconds >= FOREVER_S:
            self._add((*path, key), f"must be a time that ends, not {show_value(value)}")
        return seconds

    def _add(self, path: Path, wrong: str, *, key_of: Map | None = None) -> None:
        place = key_of.key_place(str(path[-1])) if key_of is not None else find_value_place(self._root, path)
        joint = " " if wrong.startswith(("must ", "does not ")) else ": "
        self._flaws.add(path, f"{dotted(path)}{joint}{wrong}", place)


_READERS: Mapping[str, Callable[[TriggerReader, Map, Path], dict[str, Json]]] = {
    "event": TriggerReader.event,
    "metric": TriggerReader.metric,
    "compound": TriggerReader.compound,
    "sequence": TriggerReader.sequence,
}


def kind_of(spec: Mapping[str, Json]) -> str:
    """Return the kind of a trigger: what it says, else what Prefect 3 takes its keys for."""
    if spec.get("type") is not None:
        return str(spec["type"])
    if spec.get("posture") == "Metric":
        return "metric"
    if spec.get("triggers") is not None:
        return "compound" if spec.get("require") is not None else "sequence"
    return "event"


def _resources(spec: Map) -> dict[str, Json]:
    return {key: make_plain(spec.get(key)) or {} for key in ("match", "match_related")}


def _read_seconds(value: Json) -> float:
    iso = _ISO.fullmatch(value.strip()) if isinstance(value, str) else None
    if iso is None or not any(iso.groups()):
        return read_duration(value)
    days, hours, minutes, seconds = (float(part or 0) for part in iso.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds
