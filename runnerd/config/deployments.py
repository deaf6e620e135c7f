"""Makes a Deployment from one entry of a `deployments:` list, or lists all flaws of the entry."""

from __future__ import annotations

from dataclasses import dataclass

from runnerd.config.commands import has_command, read_command
from runnerd.config.entries import Key, Kind
from runnerd.config.host_checks import HostChecks
from runnerd.config.messages import Flaw
from runnerd.config.notices import make_notices_table
from runnerd.config.placeholders import list_outputs, refuse_odd_numbers, refuse_outputs, refuse_placeholders
from runnerd.config.prefect_yaml import PullSteps, read_pull, refuse_unsupported, warn_of_ignored
from runnerd.config.run_settings import HostRun, read_run
from runnerd.config.schedules import ScheduleReader
from runnerd.config.sections import Flaws, Values, read_section
from runnerd.config.sources import check_source, in_source, read_source
from runnerd.config.triggers import read_triggers
from runnerd.config.work_pool import pool_name, read_job_variables, read_pool
from runnerd.config.yaml_nodes import Map, make_plain
from runnerd.core.place import Json, Place
from runnerd.core.settings import Deployment, key_of


def _keys(deployment: Deployment) -> frozenset[Key]:
    """Return the keys by which two deployments are the same: the name, with the code and with a stated flow name."""
    by_code = key_of(deployment)
    flow_name = deployment.flow_name or (deployment.name if deployment.command is not None else None)
    by_flow = (deployment.name, flow_name, "") if flow_name else by_code
    return frozenset((by_code, by_flow))


def _double(deployment: Deployment, earlier: Place) -> str:
    flow = deployment.flow_name or deployment.entrypoint or "this command"
    return f"deployment {deployment.name!r} of {flow} is already defined at {earlier}; rename or remove one"


DEPLOYMENTS = Kind("deployments", _keys, _double, Flaw.problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentReader:
    """Reads the deployments of one `file`.

    `file_pull` and `pull_flaws` are the settings and the flaws of the file's own `pull:`, which applies to every
    deployment that has none.
    """

    file: Map
    checks: HostChecks
    schedules: ScheduleReader
    host: HostRun
    file_pull: PullSteps
    pull_flaws: tuple[Flaw, ...]

    def build(self, node: Map, flaws: Flaws) -> Deployment | None:
        """Make the deployment that `node` describes; None when it has flaws, which are added to `flaws`."""
        if node.get("pull") is None and pool_name(node) is None and node.get("source") is None:
            flaws.all.extend(self.pull_flaws)
        outputs = list_outputs(self.file, node)
        refuse_unsupported(node, flaws)
        refuse_placeholders(node, outputs, flaws)
        refuse_odd_numbers(node, flaws)
        warn_of_ignored(node, flaws)
        for problem in self.checks.check_notices(node):
            flaws.warn(problem.message, problem.place)
        in_pool = read_pool(node, self.file, outputs, flaws)
        command = read_command(node, flaws)
        schedules = self.schedules.read(node, flaws)
        triggers = read_triggers(node, node.get("name") or self.host.name, flaws)
        pull = self._pull(node, outputs, flaws)
        values = self._run_values(node, pull.values if pull.steps is None else Values(), flaws)
        notices = read_section(node.get("notices"), make_notices_table(self.host.base), ("notices",), flaws).arguments()
        if flaws.at("name") or flaws.at("entrypoint") or not ("entrypoint" in node or has_command(node)):
            return None
        source = read_source(node, self.host.base, flaws)
        run = self.host.settings(in_source(values, source))
        _check_paused(node, flaws)
        if source is not None:
            check_source(node, source, flaws)
        if not flaws.any_in("run", "work_pool", "pull", "source"):
            here = pull.steps is None and (source is None or not source.is_pulled)
            code = node.get("entrypoint")
            where = node.value_place("entrypoint" if code is not None else "command")
            self.checks.check(
                run, values, flaws, otherwise=where, entrypoint=code if here else None, imports=not command
            )
        if flaws.all:
            return None
        limit = _concurrency(node.get("concurrency_limit"))
        keys = {"name": self.host.name, **_plain_keys(node)}
        places = _parameter_places(node)
        more = {**keys, **limit, **self._steps(node, pull), **in_pool, "notices": notices, "triggers": triggers}
        more |= {"command": command, "source": source}
        return Deployment(run=run, place=node.place(), schedules=schedules, parameter_places=places, **more)

    def _run_values(self, node: Map, pull: Values, flaws: Flaws) -> Values:
        """Merge the host's run:, the job variables, the pull steps and the deployment's own run:; the last one wins."""
        table = self.host.table
        own = read_run(node.get("run"), table, ("run",), flaws)
        variables = read_job_variables(node, table, flaws)
        return own.over(pull.over(variables.over(self.host.said)))

    def _pull(self, node: Map, outputs: frozenset[str], flaws: Flaws) -> PullSteps:
        """Read the pull steps; in a pool the worker runs any steps, of which only the directory matters here."""
        own, table = node.get("pull") is not None, self.host.table
        if pool_name(node) is not None:
            return PullSteps(read_pull(node if own else self.file, table, Flaws([])).values)
        found = read_pull(node, table, flaws) if own else self.file_pull
        if found.steps is not None and node.get("source") is None:
            refuse_outputs(node if own else self.file, outputs, flaws)
            if has_command(node):
                flaws.add(("pull",), _STEPS_OF_COMMAND, (node if own else self.file).key_place("pull"))
        return found if node.get("source") is None else PullSteps()

    def _steps(self, node: Map, pull: PullSteps) -> dict[str, Json]:
        """Return what is stored of steps that Prefect runs at each start, in a fresh directory unless one is named."""
        if pull.steps is None:
            return {}
        named = [node.get("run"), (node.get("work_pool") or {}).get("job_variables")]
        keys = ("working_directory", "working_dir")
        own = any(isinstance(one, Map) and one.get(key) is not None for one in named for key in keys)
        return {"pull_steps": pull.steps, "scratch": not own}


_KEYS = ("name", "entrypoint", "flow_name", "description", "version", "enforce_parameter_schema", "paused",
         "pause_on_shutdown", "on_remove")  # fmt: skip


_STEPS_OF_COMMAND = (
    "pull: Prefect runs these steps, which no command has in its process; name where its files are in source"
)


def _check_paused(node: Map, flaws: Flaws) -> None:
    """Refuse a deployment that states by its two keys that it is paused and that it is not."""
    active, paused = node.get("is_schedule_active"), node.get("paused")
    if isinstance(active, bool) and isinstance(paused, bool) and active is paused:
        message = f"is_schedule_active is {str(active).lower()} and so is paused; remove is_schedule_active"
        flaws.add(("is_schedule_active",), message, node.key_place("is_schedule_active"))


def _plain_keys(node: Map) -> dict[str, Json]:
    said = {key: node[key] for key in _KEYS if node.get(key) is not None}
    if node.get("is_schedule_active") is not None:
        said["paused"] = not node["is_schedule_active"]  # as Prefect 2.20 stores it
    if node.get("parameters"):
        said["parameters"] = make_plain(node["parameters"])
    if node.get("tags"):
        said["tags"] = tuple(dict.fromkeys(node["tags"]))
    return said


def _parameter_places(node: Map) -> dict[str, Place]:
    """Find the places of the parameters: a flow's own parameters are known only once it was inspected."""
    holders = {"parameters": node.get("parameters")}
    single, several = node.get("schedule"), node.get("schedules")
    schedules = [*([single] if single else []), *(several if isinstance(several, list) else [])]
    for index, schedule in enumerate(schedules):
        if isinstance(schedule, Map):
            holders[f"schedules[{index}].parameters"] = schedule.get("parameters")
    own = {"triggers": node.key_place("triggers")} if node.get("triggers") else {}
    return own | {
        f"{path}.{name}": holder.key_place(name)
        for path, holder in holders.items()
        if isinstance(holder, Map)
        for name in holder
    }


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
