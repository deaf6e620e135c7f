"""Loads a configuration directory into one Config, with every problem of every file.

Invariants: only runnerd.yaml can make a load fail; a broken drop-in does not affect other files, and its last good
settings stay in force. The last good Config is never changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from runnerd.config.deployments import DEPLOYMENTS, DeploymentReader
from runnerd.config.entries import FileItems, Kind, T, read_item
from runnerd.config.files import DROP_INS, MAIN, FileText, Listing, list_drop_ins, read_file
from runnerd.config.host_checks import HostChecks
from runnerd.config.last_good import choose_in_force, refuse_doubles
from runnerd.config.pools import POOLS, PoolReader
from runnerd.config.prefect_yaml import PullSteps, list_warnings, read_pull
from runnerd.config.quoting import conceal, is_inside
from runnerd.config.run_settings import HostRun
from runnerd.config.schedules import ScheduleReader
from runnerd.config.schema import ITEMS, SchemaCheck
from runnerd.config.scripts import SCRIPTS, ScriptReader, list_served
from runnerd.config.sections import Flaws, Values
from runnerd.config.settings import Sections, SettingsReader, make_settings, overlay, read_api_url
from runnerd.config.yaml_file import parse_map
from runnerd.config.yaml_nodes import Map
from runnerd.core.errors import ConfigError
from runnerd.core.place import Json, Place, Problem
from runnerd.core.settings import EMBEDDED, Config, Deployment, InvalidDeployment
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.spawner.child.users import AllowedUsers

_URL_ADVICE = "write api: {url: http://HOST:4200/api} into it, or api: {url: embedded} for a private server"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDefaults:
    """The host's defaults for settings that the files do not have.

    `flow_user` runs the flows without run.user; None means the user of this process. `users` are those as whom the
    spawner may start flows, None where that is unknown.
    """

    hostname: str
    python: str
    api_url: str | None = None
    flow_user: str | None = None
    users: AllowedUsers | None = None


@dataclass(slots=True)
class _File:
    """One file: its map, None when it is absent or unreadable, its flaws, and its sections.

    `outside` is the file's path without links when that is outside the configuration directory.
    """

    path: str
    is_main: bool
    node: Map | None
    flaws: Flaws
    sections: Sections
    is_absent: bool = False
    outside: str | None = None

    def problems(self) -> list[Problem]:
        return [self.discreet(flaw.problem()) for flaw in self.flaws.all]

    def discreet(self, problem: Problem) -> Problem:
        """Return a problem of this file in words that may be shown."""
        return problem if self.outside is None else conceal(problem, self.outside)

    def broken_settings(self) -> bool:
        return any(not flaw.path or flaw.path[0] not in ITEMS for flaw in self.flaws.all)

    def hides_api_url(self) -> bool:
        """Return whether the file has, or may have, an api.url in a part that already has a flaw."""
        is_unread = self.node is None and not self.is_absent
        is_left_out = self.sections.get("api", Values()).values.get("url") is not None  # by overlay()
        return is_unread or is_left_out or any(flaw.path in (("api",), ("api", "url")) for flaw in self.flaws.all)


def load(
    directory: str, *, defaults: HostDefaults, last_good: Config | None = None, calls: BoundedCalls | None = None
) -> Config:
    """Load the configuration in `directory`; `calls` limits how long what it names on this host is waited for.

    Raises ConfigError when runnerd.yaml cannot be used, or when the URL of Prefect's API is missing.
    """
    try:
        os.listdir(directory)
    except OSError as error:
        message = f"cannot read the configuration directory {directory}: {error.strerror}; fix it or name another"
        raise ConfigError([Problem(message=message)]) from None
    return _Load(directory, defaults, last_good, calls).load_all(
        list_drop_ins(directory, expected=bool(last_good and last_good.said))
    )


def check(path: str, *, defaults: HostDefaults, directory: str | None = None) -> tuple[Config | None, list[Problem]]:
    """Check a directory as `load` does, or one file by itself; the Config is None where `load` raises.

    A drop-in gets the defaults of the runnerd.yaml in `directory`, or above its conf.d, and needs no api.url.
    """
    if not os.path.isdir(path) and not os.path.isfile(path):
        why = "it is neither a file nor a directory" if os.path.exists(path) else "there is no such file or directory"
        return None, [Problem(message=f"cannot check {path}: {why}")]
    try:
        config = load(path, defaults=defaults) if not os.path.isfile(path) else _check_file(path, defaults, directory)
    except ConfigError as error:
        return None, _drop_repeats(error.problems)
    return config, _drop_repeats(config.problems)


def _check_file(path: str, defaults: HostDefaults, directory: str | None) -> Config:
    folder, name = os.path.split(os.path.abspath(path))
    if name == MAIN:
        return _Load(folder, defaults, None).load_all(Listing())
    above = os.path.dirname(folder) if os.path.basename(folder) == DROP_INS else folder
    return _Load(directory or above, defaults, None).load_one(path)


def _drop_repeats(problems: Sequence[Problem]) -> list[Problem]:
    """Drop repeated problems: one mistake in the host's run: section is a problem of every deployment."""
    return list({str(problem): problem for problem in problems}.values())


class _Load:
    """Runs one load."""

    def __init__(
        self,
        directory: str,
        defaults: HostDefaults,
        last_good: Config | None,
        calls: BoundedCalls | None = None,
    ) -> None:
        self._directory = directory
        self._base = os.path.abspath(directory)
        self._defaults = defaults
        self._last_good = last_good
        self._schema = SchemaCheck()
        self._settings = SettingsReader(self._base)
        self._schedules = ScheduleReader(now=datetime.now(UTC))
        self._checks = HostChecks(calls, users=defaults.users)

    def load_all(self, listing: Listing) -> Config:
        """Load runnerd.yaml and the drop-ins of `listing`. Raises ConfigError."""
        main = self._read_file(os.path.join(self._directory, MAIN), is_main=True)
        drop_ins = [self._read_file(path, is_main=False) for path in listing.paths]
        if not listing.known and self._last_good is not None:
            drop_ins = [self._reuse_unseen(path) for path in self._last_good.said]
        sections = self._overlay(main, drop_ins)
        fatal = main.problems() if main.broken_settings() else []
        url, nowhere = self._choose_api_url(main, sections)
        config = self._make_config([main, *drop_ins], sections, url, listing)
        if fatal or nowhere:
            raise ConfigError([*nowhere, *config.problems])
        return config

    def load_one(self, path: str) -> Config:
        """Load the drop-in at `path` by itself, with the defaults of runnerd.yaml where there is one."""
        main = self._read_file(os.path.join(self._directory, MAIN), is_main=True)
        drop_in = self._read_file(path, is_main=False)
        if is_inside(os.path.realpath(path), os.path.dirname(os.path.abspath(path))):
            drop_in.outside = None  # no link has led there: it was named
        sections = self._overlay(main, [drop_in])
        url, _ = self._choose_api_url(main, sections)
        return self._make_config([drop_in], sections, url, Listing())

    def _make_config(self, files: Sequence[_File], sections: Sections, url: str, listing: Listing) -> Config:
        host = self._make_host_run(sections)
        last = self._last_good
        old_deployments, old_pools = (last.deployments, last.pools) if last else ((), ())
        old_scripts = last.scripts if last else ()
        deployments = refuse_doubles(
            DEPLOYMENTS, [self._read_deployments(file, host) for file in files], old_deployments
        )
        read_pool, read_script = PoolReader(self._checks, host).build, ScriptReader(self._checks, host).build
        pools = refuse_doubles(POOLS, [self._read_items(POOLS, file, read_pool) for file in files], old_pools)
        scripts = refuse_doubles(SCRIPTS, [self._read_items(SCRIPTS, file, read_script) for file in files], old_scripts)
        problems = list(listing.problems)
        for file, one, two, three in zip(files, deployments, pools, scripts, strict=True):
            here = sorted([*file.problems(), *one.found(), *two.found(), *three.found()], key=_by_place)
            problems += here if file.outside is None else _conceal_all(here, file.outside)
        warnings = [warning for file in files for warning in self._list_warnings(file)]
        warnings += [warning for its in deployments for warning in its.warnings()]
        unseen = None if listing.known else os.path.join(self._directory, DROP_INS)
        deployments_in_force, invalid = choose_in_force(DEPLOYMENTS, deployments, old_deployments, unseen)
        pools_in_force, _ = choose_in_force(POOLS, pools, old_pools, unseen)
        scripts_in_force, _ = choose_in_force(SCRIPTS, scripts, old_scripts, unseen)
        return Config(
            settings=make_settings(sections, hostname=self._defaults.hostname, api_url=url),
            deployments=(*deployments_in_force, *list_served(scripts_in_force, old_deployments)),
            problems=tuple(problems),
            files=tuple(file.path for file in files if not file.is_absent),
            invalid=tuple(
                InvalidDeployment(name=item.name, place=item.place, problem=str(item.problems[0])) for item in invalid
            ),
            pools=pools_in_force,
            scripts=scripts_in_force,
            warnings=tuple(sorted(warnings, key=_by_place)),
            said={file.path: file.sections for file in files if not file.is_main},
            places=self._settings.places(sections),
            host_run=host.own_settings(),
        )

    def _list_warnings(self, file: _File) -> list[Problem]:
        """List what a file says in vain outside its deployments."""
        found = list_warnings(file.node)
        return [*found, *self._checks.check_main(file.node)] if file.is_main else found

    # --- files and their settings ---

    def _read_file(self, path: str, *, is_main: bool) -> _File:
        outside = None
        try:
            found = self._read_text(path, is_main)
            if found is None:
                return _File(path, is_main, None, Flaws([]), {}, is_absent=True)
            outside = None if is_inside(found.real_path, self._directory) else found.real_path
            node = parse_map(found.text, file=path, or_empty=is_main)
        except ConfigError as error:
            flaws = Flaws([])
            for problem in error.problems:
                flaws.add((), problem.message, problem.place)
            return _File(path, is_main, None, flaws, self._find_last_sections(path), outside=outside)
        flaws = Flaws(self._schema.check_file(node))
        sections = self._settings.sections(node, flaws, is_main=is_main)
        file = _File(path, is_main, node, flaws, sections, outside=outside)
        if file.broken_settings():
            file.sections = self._find_last_sections(path) or sections
        return file

    def _reuse_unseen(self, path: str) -> _File:
        """Reuse the last sections of a drop-in whose directory cannot be listed now."""
        return _File(path, False, None, Flaws([]), self._find_last_sections(path), is_absent=True)

    def _find_last_sections(self, path: str) -> Sections:
        """Find the last good sections of a broken file: without its run.user flows would run as the spawner's user."""
        return self._settings.restore(path, self._last_good.said.get(path)) if self._last_good else {}

    def _read_text(self, path: str, is_main: bool) -> FileText | None:
        """Read the file; None for an absent runnerd.yaml. Raises ConfigError."""
        try:
            return read_file(path)
        except FileNotFoundError:
            if is_main:
                return None
            raise ConfigError(
                [Problem(message="was removed after the directory was listed", place=Place(path))]
            ) from None

    def _overlay(self, main: _File, drop_ins: Sequence[_File]) -> Sections:
        sections: Sections = overlay({}, main.sections, main.flaws)
        for file in drop_ins:
            sections = overlay(sections, file.sections, file.flaws)
        return sections

    def _choose_api_url(self, main: _File, sections: Sections) -> tuple[str, list[Problem]]:
        """Choose the api.url of the files, else PREFECT_API_URL; with a problem when there is neither."""
        said = sections.get("api", Values()).values.get("url")
        if said is not None:
            return str(said), []
        given = self._defaults.api_url
        if given is None:
            message = f"the URL of Prefect's API is missing; {_URL_ADVICE}, or set PREFECT_API_URL"
            return EMBEDDED, [] if main.hides_api_url() else [Problem(message=message, place=Place(main.path))]
        try:
            return read_api_url(given), []
        except ValueError as error:
            return EMBEDDED, [Problem(message=f"the environment's PREFECT_API_URL: {error}")]

    # --- deployments and pools ---

    def _read_deployments(self, file: _File, host: HostRun) -> FileItems[Deployment]:
        flaws, pull = Flaws([]), PullSteps()
        if file.node is not None and not file.flaws.at("pull"):
            pull = read_pull(file.node, host.table, flaws)
        reader = DeploymentReader(
            file=file.node or Map(file.path, (1, 1)),
            checks=self._checks,
            schedules=self._schedules,
            host=host,
            file_pull=pull,
            pull_flaws=tuple(flaws.all),
        )
        return self._read_items(DEPLOYMENTS, file, reader.build)

    def _read_items(self, kind: Kind[T], file: _File, build: Callable[[Map, Flaws], T | None]) -> FileItems[T]:
        section = kind.section
        if file.node is None or file.flaws.exactly_at(section):
            refused = [file.discreet(flaw.problem()) for flaw in file.flaws.all if flaw.path in ((), (section,))]
            return FileItems(file.path, problem=next(iter(refused), None))
        nodes = file.node.get(section) or ()
        items = [
            read_item(kind, node, _place(nodes, index, node), self._schema.check_item(section, node), build)
            for index, node in enumerate(nodes)
        ]
        return FileItems(
            file.path, [replace(item, problems=tuple(map(file.discreet, item.problems))) for item in items]
        )

    def _make_host_run(self, sections: Sections) -> HostRun:
        return HostRun(
            name=str(sections.get("host", Values()).values.get("name") or self._defaults.hostname),
            table=self._settings.run_table,
            said=sections.get("run", Values()),
            python=self._defaults.python,
            user=self._defaults.flow_user,
            base=self._base,
        )


def _place(nodes: Json, index: int, item: Json) -> Place:
    place: Place = item.place() if isinstance(item, Map) else nodes.item_place(index)
    return place


def _conceal_all(problems: Sequence[Problem], real_path: str) -> list[Problem]:
    """Make one problem of those of a file that is not quoted: the messages would differ in nothing but their place."""
    return [conceal(problem, real_path, others=len(problems) - 1) for problem in problems[:1]]


def _by_place(problem: Problem) -> Place:
    return problem.place or Place("")
