"""Makes a Deployment of one item of a `deployments:` list, or says everything that is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass

from runnerd.config.checks import HostChecks
from runnerd.config.nodes import Map, plain
from runnerd.config.prefectyaml import job_variables_run, pull_run, refuse_unsupported
from runnerd.config.runsettings import read_run, run_settings
from runnerd.config.schedules import ScheduleReader
from runnerd.config.schema import SchemaCheck
from runnerd.config.values import Flaws, Table, Values
from runnerd.config.words import Flaw
from runnerd.model import Deployment, Json, Place, Problem


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a list: the deployment when it is good; its name where it has one that can be read."""

    name: str | None
    place: Place
    deployment: Deployment | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentReader:
    """Reads deployments; `host_run` is what the host's own run: sections say, `base` the configuration directory."""

    schema: SchemaCheck
    checks: HostChecks
    schedules: ScheduleReader
    run_table: Table
    host_run: Values
    python: str
    user: str | None
    base: str

    def read(self, node: Json, place: Place, file_pull: Values, pull_flaws: tuple[Flaw, ...]) -> Item:
        """`file_pull` is what the file's own `pull:` sets, `pull_flaws` what is wrong with it: both count for a
        deployment without a `pull:` of its own."""
        found = self.schema.deployment(node)
        flaws = Flaws([flaw._replace(place=flaw.place or place) for flaw in found])
        name = _name(node)
        deployment = None
        if isinstance(node, Map):
            if node.get("pull") is None:
                flaws.all.extend(pull_flaws)
            deployment = self._build(node, place, file_pull, flaws)
        problems = tuple(flaw.problem(name) for flaw in sorted(flaws.all, key=_by_place))
        return Item(name, place, deployment if not problems else None, problems)

    def _build(self, node: Map, place: Place, file_pull: Values, flaws: Flaws) -> Deployment | None:
        refuse_unsupported(node, flaws)
        schedules = self.schedules.read(node, flaws)
        values = self._run_values(node, file_pull, flaws)
        if flaws.at("name") or flaws.at("entrypoint") or not {"name", "entrypoint"} <= node.keys():
            return None
        run = run_settings(values, python=self.python, user=self.user, working_directory=self.base)
        if not any(flaw.path[:1] in (("run",), ("work_pool",), ("pull",)) for flaw in flaws.all):
            for finding in self.checks.findings(run, node["entrypoint"]):
                at = values.places.get(finding.key) or node.value_place("entrypoint")
                flaws.add(("run", finding.key), finding.message, at)
        if flaws.all:
            return None
        limit = _concurrency(node.get("concurrency_limit"))
        return Deployment(run=run, place=place, schedules=schedules, **_plain_keys(node), **limit)

    def _run_values(self, node: Map, file_pull: Values, flaws: Flaws) -> Values:
        """Later wins: the host's run:, the job variables, the pull steps, the deployment's own run:."""
        own = read_run(node.get("run"), self.run_table, ("run",), flaws)
        pull = pull_run(node, self.run_table, flaws) if node.get("pull") is not None else file_pull
        variables = job_variables_run(node, self.run_table, flaws)
        return own.over(pull.over(variables.over(self.host_run)))


def _by_place(flaw: Flaw) -> tuple[int, int]:
    return (flaw.place.line, flaw.place.column) if flaw.place else (0, 0)


def _name(node: Json) -> str | None:
    name = node.get("name") if isinstance(node, Map) else None
    return name if isinstance(name, str) and name else None


_KEYS = ("name", "entrypoint", "flow_name", "description", "version", "enforce_parameter_schema", "paused", "on_remove")


def _plain_keys(node: Map) -> dict[str, Json]:
    said = {key: node[key] for key in _KEYS if node.get(key) is not None}
    if node.get("parameters"):
        said["parameters"] = plain(node["parameters"])
    if node.get("tags"):
        said["tags"] = tuple(dict.fromkeys(node["tags"]))
    return said


def _concurrency(value: Json) -> dict[str, Json]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        return {"concurrency_limit": value}
    said = {
        "concurrency_limit": value["limit"],
        "collision_strategy": value.get("collision_strategy"),
        "collision_grace_s": value.get("grace_period_seconds"),
    }
    return {key: item for key, item in said.items() if item is not None}
