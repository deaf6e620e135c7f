"""Resolves a work pool's base job template and the job variables of a run to the run's job configuration. Pure.

Blocks and Prefect variables take several steps: `lookups` lists those to look up, and is called again with what was
found, which may name more; `resolve` makes the configuration.

Invariants: no argument is changed, and a result shares no object with an argument; everything that is wrong is one
sentence that names the variable and its source, without any secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from runnerd.core.json_words import dotted, name_kind, quote_json
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun
from runnerd.core.schema_words import suggest_near_match
from runnerd.pools.job.lookups import (
    PLACEHOLDER,
    BlockNamed,
    BlockWithId,
    Found,
    Lookup,
    Lookups,
    VariableNamed,
    holds_lookups,
    is_lookup,
    walk,
)
from runnerd.pools.job.schema import SchemaFlaw, schema_flaws, schema_problem
from runnerd.pools.job.variables import (
    Nothing,
    Path,
    deployment_source,
    merged,
    path_of,
    reach,
    sentence,
)

__all__ = ["BlockNamed", "BlockWithId", "Found", "Lookup", "Resolved", "Sources", "Unresolvable", "VariableNamed"]
__all__ += ["lookups", "resolve", "run_context"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Everything that a job configuration is made from, except the values that are looked up."""

    pool: str
    template: Mapping[str, Json]  # the pool's base_job_template
    deployment: str  # its full name, flow/deployment
    deployment_variables: Mapping[str, Json] = field(default_factory=dict)
    run_variables: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)  # what {{ $NAME }} reads
    context: Mapping[str, Json] = field(default_factory=dict)  # what {{ ctx.flow.name }} reads; see run_context

    def __repr__(self) -> str:
        return f"Sources(pool={self.pool!r}, deployment={self.deployment!r})"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A job configuration. `sources`: where each key's value, and each value one map below (`env.FOO`), came from."""

    configuration: Mapping[str, Json]
    sources: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Resolved({', '.join(self.configuration)})"


@dataclass(frozen=True, slots=True)
class Unresolvable:
    """Why there is no job configuration: one sentence that begins with a small letter."""

    problem: str


def lookups(sources: Sources, found: Found) -> frozenset[Lookup]:
    """List what to look up next; empty once `found` has everything."""
    try:
        attempt = _Attempt(sources, found)
        attempt.configuration()
        checked = [value for name, value in attempt.variables.values.items() if name in attempt.properties]
        attempt.lookups.resolved([value for value in checked if holds_lookups(value)])
    except RecursionError:
        return frozenset()  # resolve() reports it
    return frozenset(attempt.lookups.wanted)


def resolve(sources: Sources, found: Found) -> Resolved | Unresolvable:
    """Make the job configuration. `found` has everything that lookups() lists; None: Prefect has no such thing."""
    try:
        attempt = _Attempt(sources, found)
        broken = attempt.template_problem()
        if broken is not None:
            return Unresolvable(broken)
        problems = [*attempt.variables.problems, *attempt.missing(), *attempt.flaws()]
        configuration = attempt.configuration()
    except RecursionError:
        return _nested_too_deeply(sources)
    problems += [*attempt.problems, *attempt.lookups.problems]
    if attempt.lookups.wanted and not problems:
        if not lookups(sources, found):  # it goes a few calls deeper, and has given up
            return _nested_too_deeply(sources)
        raise ValueError("resolve() before everything that lookups() asks for was looked up")
    if problems:
        return Unresolvable(sentence(problems))
    return Resolved(configuration, attempt.sources_of(configuration))


def _nested_too_deeply(sources: Sources) -> Unresolvable:
    whose = f"work pool {sources.pool}'s template or {deployment_source(sources.deployment)}"
    return Unresolvable(f"the job variables are nested too deeply ({whose})")


def run_context(run: FlowRun, *, flow: str) -> dict[str, Json]:
    """Return what `{{ ctx.flow.* }}` and `{{ ctx.flow_run.* }}` stand for."""
    due = run.next_scheduled_start_time or run.expected_start_time
    return {
        "flow": {"id": run.flow_id, "name": flow},
        "flow_run": {
            "id": run.id,
            "name": run.name,
            "flow_id": run.flow_id,
            "deployment_id": run.deployment_id,
            "parameters": dict(run.parameters),
            "tags": list(run.tags),
            "auto_scheduled": run.auto_scheduled,
            "run_count": run.run_count,
            "expected_start_time": None if due is None else due.isoformat(),
            "state_type": run.state.type.value,
            "state_name": run.state.name,
            "work_pool_name": run.pool,
            "work_queue_name": run.queue,
        },
    }


class _Attempt:
    """One attempt to resolve, with the blocks and variables found so far."""

    def __init__(self, sources: Sources, found: Found) -> None:
        self._sources = sources
        self._found = found
        self.problems: list[str] = []
        self._template = sources.template.get("job_configuration")
        schema = sources.template.get("variables")
        self._schema: Mapping[str, Json] = schema if isinstance(schema, Mapping) else {}
        properties = self._schema.get("properties")
        self.properties: Mapping[str, Json] = properties if isinstance(properties, Mapping) else {}
        maps = {name: one for name, one in self.properties.items() if isinstance(one, Mapping)}
        self._defaults = {name: one["default"] for name, one in maps.items() if "default" in one}
        self.variables = merged(
            defaults=self._defaults,
            deployment=sources.deployment_variables,
            run=sources.run_variables,
            pool=sources.pool,
            deployment_name=sources.deployment,
        )
        self._known = {*self.properties, *self.variables.values}
        self._placed: dict[Path, Path] = {}  # which part of which variable stands at a path of the configuration
        self.lookups = Lookups(found, self._where)

    # --- checks -------------------------------------------------------------------------------------------------

    def template_problem(self) -> str | None:
        """Say what is wrong with the template itself; None when it is valid."""
        template, schema = self._sources.template, self._sources.template.get("variables")
        words = None
        if not isinstance(template.get("job_configuration"), Mapping):
            words = "has no job_configuration"
        elif schema is not None and not isinstance(schema, Mapping):
            words = f"has {name_kind(schema)} for its variables where a JSON schema belongs"
        else:
            wrong = schema_problem(self._schema)
            words = f"is wrong: {wrong}" if wrong else None
        return f"the base job template of work pool {self._sources.pool} {words}" if words else None

    def missing(self) -> list[str]:
        """List required variables without a value. A default of null counts as a value."""
        given = {*self.variables.values, *self._defaults}
        whose = f"nor {deployment_source(self._sources.deployment)} gives it"
        where = f"work pool {self._sources.pool}'s template, which has no default for it"
        required = [name for name in self._schema.get("required", ()) if name not in given]
        return [f'variable "{name}" is required and neither the run {whose} ({where})' for name in required]

    def flaws(self) -> list[str]:
        """List values that the schema does not allow. A value with lookups may fit before or after those."""
        values = {name: value for name, value in self.variables.values.items() if name in self.properties}
        flaws = schema_flaws(self._schema, values)
        first = {flaw.path[0]: None for flaw in flaws if flaw.path}
        held = [str(name) for name in first if holds_lookups(values[str(name)])]
        for name in held:
            looked_up = Lookups(self._found, self._where)
            values[name] = looked_up.resolved(values[name])
            if looked_up.problems or looked_up.wanted:
                del values[name]  # reported where the value is used
        if held:
            flaws = schema_flaws(self._schema, values, secret=held)
        return [self._flaw_words(flaw) for flaw in flaws]

    def _flaw_words(self, flaw: SchemaFlaw) -> str:
        if not flaw.path:
            return f"the job variables: {flaw.words} (work pool {self._sources.pool}'s template)"
        return f'variable "{dotted(flaw.path)}" {flaw.words} ({self.variables.source(flaw.path)})'

    # --- the configuration --------------------------------------------------------------------------------------

    def configuration(self) -> dict[str, Json]:
        """Fill the template with variables, environment and lookups, and collect problems on the way."""
        template = dict(self._template) if isinstance(self._template, Mapping) else {}
        self._merge_environment(template)
        configuration = self.lookups.resolved(walk(template, (), self._fill))
        if not isinstance(configuration, dict):  # it is a reference to a block that is not there, or not yet
            return {}
        if isinstance(configuration.get("name"), str):
            configuration["name"] = self._fill_context(configuration["name"])
        return configuration

    def sources_of(self, configuration: Mapping[str, Json]) -> dict[str, str]:
        """Name the source of each key, and of each key one map below, by dotted path."""
        paths: list[Path] = [(key,) for key in configuration]
        maps = {key: value for key, value in configuration.items() if isinstance(value, Mapping)}
        paths += [(key, below) for key, value in maps.items() for below in value]
        return {dotted(path): self._where(path) for path in paths}

    def _merge_environment(self, template: dict[str, Json]) -> None:
        """Merge the variable `env` over the template's own `env`, if the template's or its default is a map."""
        own, given = template.get("env"), self.variables.values.get("env")
        if not isinstance(own, Mapping) and not (isinstance(given, Mapping) and self._defaults.get("env")):
            return
        if isinstance(given, Mapping):
            template["env"] = {**(own if isinstance(own, Mapping) else {}), **given}
            self._placed |= {("env", key): ("env", key) for key in given}
        elif given is not None:
            words = f'variable "env" must be a map, not {name_kind(given)}'
            self.problems.append(f"{words} ({self.variables.source(('env',))})")

    def _fill(self, text: str, path: Path) -> Json:
        """Fill a text of the template with job variables; placeholders of lookups stay for a later pass."""
        alone = PLACEHOLDER.fullmatch(text)
        if alone is not None and not alone[1].startswith("$") and not self._is_left_for_later(alone[1], path):
            value = self._variable(alone[1], path)
            if not isinstance(value, Nothing):
                self._placed[path] = path_of(alone[1])
            return value
        return PLACEHOLDER.sub(lambda match: self._fill_embedded(match, path), text)

    def _fill_embedded(self, match: re.Match[str], path: Path) -> str:
        name = match[1]
        if self._is_left_for_later(name, path):
            return match[0]
        if name.startswith("$"):
            return self._environment_variable(name.lstrip("$"), path)
        value = self._variable(name, path)
        if holds_lookups(value):
            self._placed[path] = path_of(name)  # so that a problem of the lookup names this variable
        return "" if isinstance(value, Nothing) else str(value)

    def _is_left_for_later(self, name: str, path: Path) -> bool:
        return is_lookup(name) or (path == ("name",) and self._is_context(name))

    def _is_context(self, name: str) -> bool:
        return name.startswith("ctx.") and "ctx" not in self._known

    def _environment_variable(self, name: str, path: Path) -> str:
        value = self._sources.environment.get(name)
        if value is None:
            self._problem(f'environment variable "{name}" is not set for the runs of this work pool', path)
        return value or ""

    def _variable(self, name: str, path: Path) -> Json | Nothing:
        steps = path_of(name)
        value = reach(self.variables.values, steps)
        if isinstance(value, Nothing) and steps[0] not in self._known:
            hint = (
                "; it can only stand in name"
                if self._is_context(name)
                else suggest_near_match(name, self._known, quote_json)
            )
            self._problem(f'unknown placeholder "{{{{ {name} }}}}"{hint}', path)
        return value

    def _fill_context(self, text: str) -> Json:
        """Fill `ctx` placeholders of the name, last: so a run's or flow's own name is never read as a template."""
        alone = PLACEHOLDER.fullmatch(text)
        if alone is not None and self._is_context(alone[1]):
            return self._context_value(alone[1])
        return PLACEHOLDER.sub(self._fill_embedded_context, text)

    def _fill_embedded_context(self, match: re.Match[str]) -> str:
        return str(self._context_value(match[1])) if self._is_context(match[1]) else match[0]

    def _context_value(self, name: str) -> Json | Nothing:
        value = reach({"ctx": self._sources.context}, path_of(name))
        if isinstance(value, Nothing):
            shown = "in what a block says" if self.lookups.secret(("name",)) else f'"{{{{ {name} }}}}"'
            self._problem(f"unknown placeholder {shown}", ("name",))
        return value

    def _problem(self, words: str, path: Path) -> None:
        self.problems.append(f"{words} ({self._where(path)})")

    def _where(self, path: Path) -> str:
        """Name the source of the value at this path of the configuration."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._placed:
                variable = (*self._placed[path[:length]], *path[length:])
                return f'variable "{dotted(variable)}", {self.variables.source(variable)}'
        return f"work pool {self._sources.pool}'s job_configuration.{dotted(path)}"
