"""Reads how to start a run's process from a job configuration of type process, or a 2.x infrastructure block. Pure.

Invariants: no message shows a value, because it may be a secret; unknown keys are listed and have no effect.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from runnerd.core.json_words import kind
from runnerd.core.place import Json
from runnerd.core.prefect import BlockDocument
from runnerd.pools.job.template import Unresolvable
from runnerd.pools.job.variables import deep_copy, sentence

_KEYS = frozenset({"command", "env", "working_dir", "labels", "name", "stream_output", "grace_period_seconds"})
_OF_BLOCKS = frozenset({"type", "block_type_slug"})  # keys by which a block names its type
_TRUE = frozenset({"true", "1", "yes", "y", "on", "t"})  # as pydantic reads them
_FALSE = frozenset({"false", "0", "no", "n", "off", "f"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessJob:
    """How to start the process of a run. Its repr shows neither command nor environment: they may hold secrets."""

    command: tuple[str, ...] | None = None  # None: the flow's interpreter with -m prefect.engine
    env: Mapping[str, str] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()  # variables that null takes out of the environment
    working_dir: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    stream_output: bool = True
    grace_period_s: float | None = None
    ignored: tuple[str, ...] = ()  # keys that mean nothing to a process

    def __repr__(self) -> str:
        return f"ProcessJob(name={self.name!r}, env=<{len(self.env)} variables>, ignored={self.ignored})"


def process_job(
    configuration: Mapping[str, Json], *, sources: Mapping[str, str] | None = None
) -> ProcessJob | Unresolvable:
    """Read a job configuration, or say what is wrong. `sources`: where each key came from, as in Resolved.sources."""
    reading = _Reading(configuration, sources or {})
    job = ProcessJob(
        command=reading.command(),
        env=reading.environment(),
        removed=reading.removed(),
        working_dir=reading.text("working_dir") or None,
        labels=reading.labels(),
        name=reading.text("name") or None,
        stream_output=reading.flag("stream_output", default=True),
        grace_period_s=reading.seconds("grace_period_seconds"),
        ignored=tuple(sorted(configuration.keys() - _KEYS)),
    )
    return Unresolvable(sentence(reading.problems)) if reading.problems else job


def agent_job(
    block: BlockDocument | None, *, deployment: str, overrides: Mapping[str, Json]
) -> ProcessJob | Unresolvable:
    """Read the deployment's infrastructure block with its overrides (dotted keys) applied, as the agent of 2.x does.

    Without a block the job is a plain process, and overrides have no effect, as with Prefect's agent.
    """
    if block is None:
        return ProcessJob(ignored=tuple(sorted(overrides)))
    title = f"{block.type_slug}/{block.name or 'anonymous'}"
    if block.type_slug != "process":
        return Unresolvable(
            f"deployment {deployment} has the infrastructure block {title}, and runnerd runs none but those of type"
            " process: serve its work queue with Prefect's own agent, or move the deployment to a work pool"
        )
    data: dict[str, Json] = deep_copy(block.data)
    source = f"deployment {deployment}'s job_variables"
    sources = dict.fromkeys(data, f"infrastructure block {title}")
    problems = []
    for key, value in overrides.items():
        sources[key.partition(".")[0]] = source
        if not _set_at_path(data, key.split("."), value):
            problems.append(f'"{key}" has no place: what is above it is no map ({source})')
    if problems:
        return Unresolvable(sentence(problems))
    known = {key: value for key, value in data.items() if key not in _OF_BLOCKS and not key.startswith("_")}
    return process_job(known, sources=sources)


def _set_at_path(data: dict[str, Json], steps: list[str], value: Json) -> bool:
    """Set the value at this path, and make missing maps on the way; False when something else is in the way."""
    *parents, last = steps
    holder: Json = data
    for parent in parents:
        if holder.get(parent) is None:
            holder[parent] = {}
        holder = holder[parent]
        if not isinstance(holder, dict):
            return False
    holder[last] = deep_copy(value)
    return True


class _Reading:
    """Reads the keys of a configuration one by one, and collects what is wrong with them in `problems`."""

    def __init__(self, configuration: Mapping[str, Json], sources: Mapping[str, str]) -> None:
        self._configuration = configuration
        self._sources = sources
        self.problems: list[str] = []
        self._env = self._map("env")

    def command(self) -> tuple[str, ...] | None:
        value = self._configuration.get("command")
        if isinstance(value, list):  # an infrastructure block's
            words = [one for one in value if isinstance(one, str)]
            if len(words) < len(value):
                self._wrong("command", "must be a list of texts")
        else:
            words = self._split(self.text("command") or "")
        if not all(_is_clean(word) for word in words):
            self._wrong("command", "has a character that no command line can have")
        return tuple(words) or None

    def _split(self, command: str) -> list[str]:
        try:
            return shlex.split(command)
        except ValueError:
            self._wrong("command", "has a quote that is not closed, or ends in a backslash")
            return []

    def environment(self) -> dict[str, str]:
        given = {key: _as_text(value) for key, value in self._env.items() if value is not None}
        if not all(key and "=" not in key and _is_clean(key) for key in self._env):
            self._wrong("env", 'has a name that is empty, or has "=" or another character that no name can have')
        for key, value in given.items():
            if not _is_clean(value):
                self._wrong(f"env.{key}", "has a character that no environment variable can have")
        return given

    def removed(self) -> frozenset[str]:
        return frozenset(key for key, value in self._env.items() if value is None)

    def labels(self) -> dict[str, str]:
        return {key: _as_text(value) for key, value in self._map("labels").items() if value is not None}

    def text(self, key: str) -> str | None:
        value = self._configuration.get(key)
        if isinstance(value, (dict, list)):
            self._wrong(key, f"must be text, not {kind(value)}")
            return None
        text = None if value is None else _as_text(value)
        if text is not None and key != "command" and not _is_clean(text):
            self._wrong(key, "has a character that it cannot have")
        return text

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._configuration.get(key)
        if value is None:
            return default
        words = _as_text(value).strip().lower()
        if words not in _TRUE | _FALSE:
            self._wrong(key, f"must be true or false, not {kind(value)}")
        return words in _TRUE

    def seconds(self, key: str) -> float | None:
        value = self._configuration.get(key)
        if value is None:
            return None
        seconds = _number(value)
        if not (math.isfinite(seconds) and seconds > 0):
            self._wrong(key, "must be a number of seconds, more than 0")
        return seconds

    def _map(self, key: str) -> Mapping[str, Json]:
        value = self._configuration.get(key)
        if value is not None and not isinstance(value, Mapping):
            self._wrong(key, f"must be a map, not {kind(value)}")
            return {}
        return value or {}

    def _wrong(self, key: str, words: str) -> None:
        source = self._sources.get(key) or self._sources.get(key.partition(".")[0])
        self.problems.append(f'"{key}" {words}' + (f" ({source})" if source else ""))


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else str(value)


def _number(value: Json) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _is_clean(text: str) -> bool:
    """Whether the kernel accepts the text: it has no NUL, and can be encoded as UTF-8."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


# --- the template of a pool that has to be created ------------------------------------------------------------


def process_template(major: int = 3) -> dict[str, Json]:
    """Return the base job template that Prefect's worker of this major version gives a pool of type process."""
    variables = {
        "name": _variable("Name", "What the process is called.", major),
        "env": _of_texts("Environment Variables", "Environment variables of the process; null removes one.", major),
        "labels": _of_texts("Labels", "Labels of the process.", 0),
        "command": _variable("Command", "What runs the flow; best left to the worker.", major),
        "stream_output": {
            "title": "Stream Output",
            "description": "Whether the output of the process goes to the worker's own as well.",
            "default": True,
            "type": "boolean",
        },
        "working_dir": _variable(
            "Working Directory",
            "Where the process starts; else a directory of its own.",
            major,
            format="path",
        ),
    }
    return {
        "job_configuration": {key: f"{{{{ {key} }}}}" for key in sorted(variables)},
        "variables": {"type": "object", "properties": variables},
    }


def _variable(title: str, description: str, major: int, **more: str) -> dict[str, Json]:
    """Return the schema of an optional text, as Prefect's models of this major version have it."""
    text = {"type": "string", **more}
    said = text if major == 2 else {"anyOf": [text, {"type": "null"}], "default": None}
    return {"title": title, "description": description, **said}


def _of_texts(title: str, description: str, major: int) -> dict[str, Json]:
    text = {"type": "string"}
    values = {"anyOf": [text, {"type": "null"}]} if major == 3 else text
    return {"title": title, "description": description, "type": "object", "additionalProperties": values}
