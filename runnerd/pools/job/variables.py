"""Merges job variables and says which layer gave each value; the paths that the modules beside this one use. Pure.

Invariants: an argument is never changed; every part of a value has a source.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runnerd.core.place import Json

Path = tuple[str | int, ...]

RUN = "the run's own job variables"


class Layer(NamedTuple):
    """The variables of one source (run, deployment or template), with dotted keys expanded."""

    source: str
    values: dict[str, Json]


@dataclass(frozen=True, slots=True)
class JobVariables:
    """The merged values, and the layers they came from, the strongest first."""

    values: dict[str, Json]
    layers: tuple[Layer, ...]
    problems: tuple[str, ...] = ()

    def source(self, path: Path) -> str:
        """Name the source of the value at `path`: the layer whose own values reach farthest along the path."""
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
    """Merge the defaults, over them the deployment's variables, over them the run's own.

    A later value replaces an earlier one whole; only `env` is merged key by key, and a dotted key of the run replaces
    only that key within the deployment's value.
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
    """Expand `{"env.FOO": 1}` to `{"env": {"FOO": 1}}`; a key without dots wins over a dotted one."""
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
        elif not (key == "env" and value is None and key in values):  # a null env removes no variable
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
    """The absence of a value, unlike null."""


NOTHING = Nothing()


def _steps(dotted_path: str) -> list[str]:
    return dotted_path.replace("[", ".").replace("]", "").split(".")


def path_of(dotted_path: str) -> Path:
    """Split `a.b[0].c` into steps."""
    return tuple(int(step) if step.isdecimal() and len(step) < 10 else step for step in _steps(dotted_path))


def reach(value: Json, path: Path) -> Json | Nothing:
    """Find the value at `path`, or NOTHING; a negative index counts from the end of a list."""
    for step in path:
        try:
            value = value[int(step)] if isinstance(value, list) else _below(value, str(step))
        except (IndexError, ValueError):
            return NOTHING
    return value


def _below(value: Json, key: str) -> Json | Nothing:
    return value.get(key, NOTHING) if isinstance(value, Mapping) else NOTHING


def _reach(value: Json, path: Path) -> int:
    """Count the steps of `path` that exist in `value`."""
    return next((n for n in range(len(path), 0, -1) if reach(value, path[:n]) is not NOTHING), 0)


# --- words --------------------------------------------------------------------------------------------------


def sentence(problems: Sequence[str]) -> str:
    """Join the problems into one sentence, without repeating any."""
    return "; ".join(dict.fromkeys(problems))
