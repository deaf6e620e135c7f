"""Makes PoolSettings of one entry of a `pools:` list, or says everything that is wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from runnerd.config.entries import Key, Kind
from runnerd.config.files import read_text
from runnerd.config.host_checks import HostChecks
from runnerd.config.messages import Flaw, value_place
from runnerd.config.run_settings import HostRun, path_in, read_run
from runnerd.config.sections import Flaws, Table, as_is, duration, line, read_section, whole
from runnerd.config.yaml_nodes import Map
from runnerd.core.errors import ConfigError
from runnerd.core.json_words import dotted
from runnerd.core.place import Json, Place, Problem
from runnerd.core.settings import PoolSettings


def _keys(pool: PoolSettings) -> frozenset[Key]:
    return frozenset([(pool.name,)])


def _double(pool: PoolSettings, earlier: Place) -> str:
    return f"pool {pool.name!r} stands here and at {earlier}; make one of them, or remove one"


def _problem(flaw: Flaw, _name: str | None) -> Problem:
    return flaw.problem()


POOLS = Kind("pools", _keys, _double, _problem)


def pool_table(base: str) -> Table:
    """The keys of a pool that are its own; `base` is the configuration directory."""
    return {
        "name": ("name", as_is),
        "queues": ("queues", tuple),
        "match": ("match", _prefixes),
        "type": ("type", line),
        "create": ("create", as_is),
        "base_job_template": ("base_job_template", path_in(base)),
        "limit": ("limit", whole),
        "prefetch": ("prefetch_s", duration),
        "install_policy": ("install_policy", as_is),
    }


def _prefixes(value: Json) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True, slots=True)
class PoolReader:
    """Reads pools of a host."""

    checks: HostChecks
    host: HostRun

    def build(self, node: Map, flaws: Flaws) -> PoolSettings | None:
        """The pool that `node` asks for; None with what is wrong in `flaws`."""
        values = read_section(node, pool_table(self.host.base), (), flaws)
        _check_queues(node, flaws)
        run = read_run(node.get("run"), self.host.table, ("run",), flaws).over(self.host.said)
        settings = self.host.settings(run)
        if not flaws.any_in("run"):
            self.checks.check(settings, run, flaws, otherwise=node.place())
        said = values.arguments()
        if said.get("base_job_template") and said.get("create", True):
            _check_template(said["base_job_template"], values.places["base_job_template"], flaws)
        if flaws.all:
            return None
        return PoolSettings(
            run=settings, scratch="working_directory" not in run.arguments(), place=node.place(), **said
        )


def _check_queues(node: Map, flaws: Flaws) -> None:
    if node.get("queues") is not None and node.get("match") is not None:
        later = max("queues", "match", key=lambda key: node.keys_at[key])
        message = "queues and match cannot both be; name the queues, or say how their names begin"
        flaws.add((later,), message, node.key_place(later))
    for key in ("queues", "match"):
        names = node.get(key)
        if isinstance(names, list) and not flaws.at(key):
            _check_repeats(node, key, names, flaws)


def _check_repeats(node: Map, key: str, names: list[str], flaws: Flaws) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            path = (key, index)
            flaws.add(path, f"{dotted(path)}: {name!r} stands twice; remove one", value_place(node, path))


def _check_template(path: str, place: Place, flaws: Flaws) -> None:
    """It is read once more when the pool is created, which may be long after the mistake was made."""
    wrong = None
    try:
        if not isinstance(json.loads(read_text(path)), dict):
            wrong = "must hold a JSON object with variables and job_configuration"
    except FileNotFoundError:
        wrong = "no such file"
    except ConfigError as error:
        wrong = "; ".join(problem.message for problem in error.problems)
    except (ValueError, RecursionError) as error:
        wrong = f"is not JSON: {error}"
    if wrong:
        flaws.add(("base_job_template",), f"base_job_template {path}: {wrong}", place)
