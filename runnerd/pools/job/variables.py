"""Job variables: who gave which, and what they come to; what each module about them needs to speak of them. Pure.

Invariants: nothing that is handed in is ever changed; who gave a value can be told for every part of it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runnerd.core.place import Json

Path = tuple[str | int, ...]

RUN = "the run's own job variables"
_SHOWN = 60


class Layer(NamedTuple):
    """What one of the three said, dotted keys expanded."""

    source: str
    values: dict[str, Json]


@dataclass(frozen=True, slots=True)
class JobVariables:
    """The merged values; `layers` says who gave what, the strongest first."""

    values: dict[str, Json]
    layers: tuple[Layer, ...]
    problems: tuple[str, ...] = ()

    def source(self, path: Path) -> str:
        """Who gave the value at `path`: whoever's own values reach farthest along it."""
        return max(self.layers, key=lambda layer: _reach(layer.values, path)).source


def deployment_source(deployment: str) -> str:
    return f"deployment {deployment}'s job_variables"


def default_source(pool: str) -> str:
    return f"the default of work pool {pool}'s template"


def merged(
    *,
    defaults: Mapping[str, Json],
    deployment: Mapping[str, Json],
    run: Mapping[str, Json],
    pool: str,
    deployment_name: str,
) -> JobVariables:
    """Defaults, over them the deployment's, over them the run's own.

    A later value replaces an earlier one whole; only `env` is merged key by key, and a dotted key of the run sets no
    more than what it names in the deployment's.
    """
    problems: list[str] = []
    ours = _expanded(run, RUN, problems)
    theirs = _expanded(deployment, deployment_source(deployment_name), problems)
    base = Layer(default_source(pool), {key: value for key, value in defaults.items() if value is not None})
    single = {key.partition(".")[0] for key in run if "." in key} - set(run)
    given = _over(theirs.values, ours.values, merging={"env", *single})
    values = _over(base.values, given, merging={"env"})
    return JobVariables(values, (ours, theirs, base), tuple(problems))


def _expanded(given: Mapping[str, Json], source: str, problems: list[str]) -> Layer:
    """`{"env.FOO": 1}` -> `{"env": {"FOO": 1}}`; what is written without dots wins over it."""
    nested: dict[str, Json] = {}
    for key, value in given.items():
        if "." not in key:
            continue
        *parents, last = _steps(key)
        holder: Json = nested
        for parent in parents:
            holder = holder.setdefault(parent, {}) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder[last] = deep_copy(value)
        else:
            problems.append(f'job variable "{key}" has no place: what is above it is no map ({source})')
    plain = {key: value for key, value in given.items() if "." not in key}
    return Layer(source, _over(nested, plain, merging=nested.keys()))


def _over(below: Mapping[str, Json], above: Mapping[str, Json], *, merging: Collection[str]) -> dict[str, Json]:
    values = dict(below)
    for key, value in above.items():
        if key in merging and isinstance(values.get(key), dict) and isinstance(value, dict):
            values[key] = _deep_over(values[key], value)
        elif not (key == "env" and value is None and key in values):  # null says nothing about the others' variables
            values[key] = value
    return values


def _deep_over(below: Mapping[str, Json], above: Mapping[str, Json]) -> dict[str, Json]:
    both = below.keys() & above.keys()
    deeper = {
        key: _deep_over(below[key], above[key])
        for key in both
        if isinstance(below[key], dict) and isinstance(above[key], dict)
    }
    return {**below, **above, **deeper}


def deep_copy(value: Json) -> Json:
    if isinstance(value, Mapping):
        return {key: deep_copy(one) for key, one in value.items()}
    return [deep_copy(one) for one in value] if isinstance(value, list) else value


# --- paths --------------------------------------------------------------------------------------------------


class Nothing:
    """There is no such value; null is one."""


NOTHING = Nothing()


def _steps(dotted_path: str) -> list[str]:
    return dotted_path.replace("[", ".").replace("]", "").split(".")


def path_of(dotted_path: str) -> Path:
    """`a.b[0].c` as steps."""
    return tuple(int(step) if step.isdecimal() else step for step in _steps(dotted_path))


def reach(value: Json, path: Path) -> Json | Nothing:
    """The value at `path`, or NOTHING; a list counts from either end."""
    for step in path:
        try:
            value = value[int(step)] if isinstance(value, list) else _below(value, str(step))
        except (IndexError, ValueError):
            return NOTHING
    return value


def _below(value: Json, key: str) -> Json | Nothing:
    return value.get(key, NOTHING) if isinstance(value, Mapping) else NOTHING


def _reach(value: Json, path: Path) -> int:
    """How many steps of `path` there are in `value`."""
    return next((n for n in range(len(path), 0, -1) if reach(value, path[:n]) is not NOTHING), 0)


# --- words --------------------------------------------------------------------------------------------------


def near_words(name: str, known: Iterable[str]) -> str:
    """`; did you mean "image"?` where something is written much the same."""
    found = difflib.get_close_matches(name, [one for one in known if isinstance(one, str)], n=1)
    return f'; did you mean "{found[0]}"?' if found else ""


def kind(value: Json) -> str:
    """What a value is, without saying it."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "true or false"
    if isinstance(value, str):
        return "text"
    return "a map" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else "a number"


def show(value: Json) -> str:
    """A value as a message shows it: short, and never the inside of a list or map."""
    if isinstance(value, (Mapping, list)):
        return kind(value)
    return shortened(json.dumps(value, ensure_ascii=False))


def shortened(text: str) -> str:
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def sentence(problems: Sequence[str]) -> str:
    """All of them at once, each said once."""
    return "; ".join(dict.fromkeys(problems))
