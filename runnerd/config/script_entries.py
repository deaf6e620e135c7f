"""Makes deployments of what scripts serve, checked as the entries of a drop-in are.

Invariants: what a script says is hostile, so its entries pass the schema, the bounds and the checks of a drop-in's; an
entry that needs what this version lacks is registered without it, with a warning; a script that cannot be read, and an
entry that is broken, keep their last good deployments (config/last_good.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from runnerd.config.deployments import DEPLOYMENTS, DeploymentReader
from runnerd.config.entries import FileItems, Item, read_item
from runnerd.config.host_checks import HostChecks
from runnerd.config.last_good import choose_in_force, refuse_doubles
from runnerd.config.load import HostDefaults
from runnerd.config.prefect_yaml import PullSteps
from runnerd.config.run_settings import HostRun, make_run_table
from runnerd.config.schedules import ScheduleReader
from runnerd.config.schema import SchemaCheck
from runnerd.config.sections import Values
from runnerd.config.yaml_nodes import List, Map
from runnerd.core.json_words import show_value
from runnerd.core.place import Json, Place, Problem
from runnerd.core.recording import Recorded, RecordingFailure, Served
from runnerd.core.settings import Config, Deployment, ScriptSettings
from runnerd.files.bounded_calls import BoundedCalls

_KEPT = ("name", "entrypoint", "run")  # without these there is no entry, or another one
_PARTS = re.compile(r"[^.\[\]]+")
_TAKEN_OUT_MAX = 50  # of one entry
_DEPTH_MAX = 50  # as in a file
_NAME_MAX = 100
# What a script may say of its deployments. All else decides as whom and within which limits code is run, or which files
# the daemon reads: that is for the files of the administrator, because a script may answer whatever it likes.
_PERMITTED: Mapping[str, frozenset[str]] = {
    "": frozenset(
        "name entrypoint flow_name description version tags parameters schedules paused pause_on_shutdown"
        " concurrency_limit enforce_parameter_schema triggers sla work_pool run source".split()
    ),
    "run": frozenset(("limit", "limit_group", "environment", "working_directory")),
    "work_pool": frozenset(("name", "work_queue_name", "job_variables")),
    "source": frozenset(("git", "remote", "pull_interval")),
    "source.git": frozenset(("url", "branch", "tag", "commit", "include_submodules", "directories")),
}

Outcomes = Mapping[str, Recorded]  # by the file of a script


@dataclass(frozen=True, slots=True)
class Removal:
    """A key that was taken out of an entry, its value, and why."""

    key: str
    value: Json
    why: str


def take_out(entry: dict[str, Json], problem: Problem) -> Removal | None:
    """Take the key that a problem is about out of an entry; None if that is none that an entry can be without."""
    parts = _PARTS.findall(problem.key or "")
    if not parts or parts[0] in _KEPT or parts[0] not in entry:
        return None
    value = entry[parts[0]]
    if len(parts) == 2 and isinstance(value, dict) and parts[1] in value and len(value) > 1:
        return Removal(".".join(parts), value.pop(parts[1]), problem.message)
    return Removal(parts[0], entry.pop(parts[0]), problem.message)


def leave_permitted(value: Mapping[str, Json], left_out: list[str], path: str = "") -> dict[str, Json]:
    """Return an entry with what a script may say of it, and add the names of all else to `left_out`."""
    kept: dict[str, Json] = {}
    for key, item in value.items():
        its = f"{path}.{key}" if path else str(key)
        if key not in _PERMITTED[path]:
            left_out.append(its if its.isprintable() and len(its) <= _NAME_MAX else show_value(its))
        else:
            kept[key] = leave_permitted(item, left_out, its) if its in _PERMITTED and isinstance(item, dict) else item
    return kept


@dataclass(slots=True)
class _Entered:
    items: list[FileItems[Deployment]] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def enter_scripts(
    of_files: Config,
    before: Sequence[Deployment],
    outcomes: Outcomes,
    *,
    directory: str,
    defaults: HostDefaults,
    calls: BoundedCalls | None = None,
) -> Config:
    """Return the configuration of the files with the deployments of its scripts, as far as these have been read.

    `before` were in force; those of a script that has not been read stay. May take long: it looks at this host.
    """
    files = {script.file for script in of_files.scripts}
    own = [one for one in of_files.deployments if one.place.file not in files]
    if not files:
        return of_files
    entries = _Entries(of_files, directory=directory, defaults=defaults, calls=calls)
    entered = _Entered()
    for script in of_files.scripts:
        if (outcome := outcomes.get(script.file)) is not None:
            entries.enter(script, outcome, entered)
    stated = [FileItems("", [Item(one.name, one.place, one, ()) for one in own])]
    first, *items = refuse_doubles(DEPLOYMENTS, [*stated, *entered.items], before)
    in_force, _ = choose_in_force(DEPLOYMENTS, items, before, None)
    unread = [one for one in before if one.place.file in files - outcomes.keys()]
    problems = [problem for its in (first, *items) for problem in its.found()]
    problems += [its.problem for its in items if its.problem is not None]
    stays = [item.good for item in first.items if item.good is not None]
    return replace(
        of_files,
        deployments=(*stays, *in_force, *unread),
        problems=(*of_files.problems, *problems),
        warnings=(*of_files.warnings, *entered.warnings),
    )


class _Entries:
    """Makes the deployments of scripts, by one schema and one look at this host."""

    def __init__(self, config: Config, *, directory: str, defaults: HostDefaults, calls: BoundedCalls | None) -> None:
        self._schema = SchemaCheck()
        self._checks = HostChecks(calls, users=defaults.users)
        self._schedules = ScheduleReader(now=datetime.now(UTC))
        self._name = config.settings.name
        self._directory, self._defaults = directory, defaults
        self._table = make_run_table(directory)

    def enter(self, script: ScriptSettings, outcome: Recorded, entered: _Entered) -> None:
        """Add what a script serves, or why it is not known, to `entered`."""
        if isinstance(outcome, RecordingFailure):
            place = Place(script.file, outcome.said.line or 1)
            entered.items.append(FileItems(script.file, problem=Problem(message=outcome.said.message, place=place)))
            return
        build = self._reader(script)
        found = [self._read(served, script, build, entered.warnings) for served in outcome.served]
        entered.items.append(FileItems(script.file, found))
        entered.warnings += [
            Problem(message=one.message, place=Place(script.file, one.line or 1)) for one in outcome.left_out
        ]

    def _reader(self, script: ScriptSettings) -> Callable[[Map, Json], Deployment | None]:
        said = {key: tuple(value) if isinstance(value, list) else value for key, value in script.said.items()}
        reader = DeploymentReader(
            file=Map(script.file, (1, 1)),
            checks=self._checks,
            schedules=self._schedules,
            host=HostRun(
                name=self._name,
                table=self._table,
                said=Values(said),
                python=self._defaults.python,
                user=self._defaults.flow_user,
                base=self._directory,
            ),
            file_pull=PullSteps(),
            pull_flaws=(),
        )
        return reader.build

    def _read(
        self,
        served: Served,
        script: ScriptSettings,
        build: Callable[[Map, Json], Deployment | None],
        warnings: list[Problem],
    ) -> Item[Deployment]:
        """Read one entry, without the keys that are refused as long as it can be without them."""
        refused: list[str] = []
        entry = leave_permitted(served.entry, refused)
        _keep_group_apart(entry, script)
        place = Place(script.file, served.line)
        warnings += [
            Problem(message=f"{key} is not carried over: unknown key in what a script says", place=place)
            for key in refused[:_TAKEN_OUT_MAX]
        ]
        for _ in range(_TAKEN_OUT_MAX):
            node = _make_node(entry, place)
            item = read_item(DEPLOYMENTS, node, place, self._schema.check_item("deployments", node), build)
            removed = [one for problem in item.problems if (one := take_out(entry, problem)) is not None]
            if not removed:
                break
            warnings += [
                Problem(message=f"{one.key} is not carried over: {one.why}", place=place, deployment=item.name)
                for one in removed
            ]
        return item


def _keep_group_apart(entry: dict[str, Json], script: ScriptSettings) -> None:
    """Have a script name groups of its own only: it could use up a limit of deployments that are not its."""
    run = entry.get("run")
    group = run.get("limit_group") if isinstance(run, dict) else None
    if isinstance(run, dict) and isinstance(group, str) and not group.startswith(f"{script.path}:"):
        entry["run"] = {**run, "limit_group": f"{script.path}: {group}"}


def _make_node(value: Json, place: Place, depth: int = 0) -> Json:
    """Make the nodes of a file of a value of JSON, all of them at one place."""
    at = (place.line, place.column)
    if isinstance(value, dict) and depth < _DEPTH_MAX:
        node = Map(place.file, at)
        node.update({str(key): _make_node(item, place, depth + 1) for key, item in value.items()})
        return node
    if isinstance(value, list) and depth < _DEPTH_MAX:
        listed = List(place.file, at)
        listed.extend(_make_node(item, place, depth + 1) for item in value)
        listed.items_at = [at] * len(listed)
        return listed
    return None if isinstance(value, dict | list) else value
