"""Makes PoolSettings from one entry of a `pools:` list, or lists all flaws of the entry."""

from __future__ import annotations

import json
from dataclasses import dataclass

from runnerd.config.entries import Key, Kind
from runnerd.config.files import read_text
from runnerd.config.host_checks import HostChecks
from runnerd.config.messages import Flaw, find_value_place
from runnerd.config.run_settings import HostRun, make_path_reader, read_run
from runnerd.config.sections import Flaws, Table, make_duration_reader, read_as_is, read_line, read_section, read_whole
from runnerd.config.settings import DAY_S
from runnerd.config.yaml_nodes import Map
from runnerd.core.errors import ConfigError
from runnerd.core.json_words import dotted
from runnerd.core.place import Json, Place, Problem
from runnerd.core.settings import PoolSettings


def _keys(pool: PoolSettings) -> frozenset[Key]:
    return frozenset([(pool.name,)])


def _double(pool: PoolSettings, earlier: Place) -> str:
    return f"pool {pool.name!r} is already defined at {earlier}; merge them, or remove one"


def _problem(flaw: Flaw, _name: str | None) -> Problem:
    return flaw.problem()


POOLS = Kind("pools", _keys, _double, _problem)


def make_pool_table(base: str) -> Table:
    """Make the table of a pool's keys, without those of run:; `base` is the configuration directory."""
    return {
        "name": ("name", read_as_is),
        "queues": ("queues", tuple),
        "match": ("match", _prefixes),
        "type": ("type", read_line),
        "create": ("create", read_as_is),
        "base_job_template": ("base_job_template", make_path_reader(base)),
        "limit": ("limit", read_whole),
        "prefetch": ("prefetch_s", make_duration_reader(least_s=0, most_s=DAY_S)),
        "poll_interval": ("poll_interval_s", make_duration_reader(least_s=0.1, most_s=DAY_S)),
        "install_policy": ("install_policy", read_as_is),
    }


def _prefixes(value: Json) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@dataclass(frozen=True, slots=True)
class PoolReader:
    """Reads the pools of a host."""

    checks: HostChecks
    host: HostRun

    def build(self, node: Map, flaws: Flaws) -> PoolSettings | None:
        """Make the pool that `node` describes; None when it has flaws, which are added to `flaws`."""
        values = read_section(node, make_pool_table(self.host.base), (), flaws)
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
        message = "cannot have both queues and match; remove one"
        flaws.add((later,), message, node.key_place(later))
    for key in ("queues", "match"):
        names = node.get(key)
        if isinstance(names, list) and not flaws.at(key):
            _check_repeats(node, key, names, flaws)


def _check_repeats(node: Map, key: str, names: list[str], flaws: Flaws) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            path = (key, index)
            flaws.add(path, f"{dotted(path)}: {name!r} is repeated; remove one", find_value_place(node, path))


def _check_template(path: str, place: Place, flaws: Flaws) -> None:
    """Check the file now, because it is used only when the pool is created, which may be much later."""
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
