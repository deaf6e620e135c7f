"""Reads a configuration directory into one Config: every file, every problem, in one go.

Invariants: only runnerd.yaml can make a load fail; a drop-in that is broken costs nothing but itself, and what it last
said stays in force. The last good Config is read, never changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runnerd.config.deployments import DEPLOYMENTS, DeploymentReader
from runnerd.config.entries import FileItems, Kind, T, read_item
from runnerd.config.files import DROP_INS, MAIN, Listing, list_drop_ins, read_text
from runnerd.config.host_checks import HostChecks
from runnerd.config.last_good import settle, without_doubles
from runnerd.config.pools import POOLS, PoolReader
from runnerd.config.prefect_yaml import pull_run
from runnerd.config.run_settings import HostRun
from runnerd.config.schedules import ScheduleReader
from runnerd.config.schema import ITEMS, SchemaCheck
from runnerd.config.sections import Flaws, Values
from runnerd.config.settings import Sections, SettingsReader, api_url, host_settings, overlay
from runnerd.config.yaml_file import parse
from runnerd.config.yaml_nodes import List, Map
from runnerd.core.errors import ConfigError
from runnerd.core.json_words import show
from runnerd.core.place import Json, Place, Problem
from runnerd.core.settings import EMBEDDED, Config, Deployment, InvalidDeployment, PoolSettings

_UNSAID = "write api: {url: http://HOST:4200/api} into it, or api: {url: embedded} for a private server"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostDefaults:
    """What holds where the files say nothing.

    `flow_user` is who runs a flow without run.user; None is the user of this process.
    """

    hostname: str
    python: str
    api_url: str | None = None
    flow_user: str | None = None


@dataclass(slots=True)
class _File:
    """One file as read: its map, None when there is none to read, and what was found wrong with it."""

    path: str
    is_main: bool
    node: Map | None
    flaws: Flaws
    sections: Sections
    is_absent: bool = False

    def problems(self) -> list[Problem]:
        return [flaw.problem() for flaw in self.flaws.all]

    def broken_settings(self) -> bool:
        return any(not flaw.path or flaw.path[0] not in ITEMS for flaw in self.flaws.all)

    def hides_api_url(self) -> bool:
        """Whether it may well say a URL, in a part that is refused already."""
        is_unread = self.node is None and not self.is_absent
        return is_unread or any(flaw.path in (("api",), ("api", "url")) for flaw in self.flaws.all)


def load(directory: str, *, defaults: HostDefaults, last_good: Config | None = None) -> Config:
    """The configuration in `directory`. Raises ConfigError when there can be none: runnerd.yaml is unusable, or
    nothing says where Prefect's API is."""
    try:
        os.listdir(directory)
    except OSError as error:
        message = f"cannot read the configuration directory {directory}: {error.strerror}; mend it or name another"
        raise ConfigError([Problem(message=message)]) from None
    return _Load(directory, defaults, last_good).all(list_drop_ins(directory))


def check(path: str, *, defaults: HostDefaults) -> tuple[Config | None, list[Problem]]:
    """What `load` would say of a directory, or of one file by itself: a drop-in gets the defaults of the runnerd.yaml
    above its conf.d, and needs no api.url. The Config is None when there can be none."""
    try:
        config = load(path, defaults=defaults) if not os.path.isfile(path) else _check_file(path, defaults)
    except ConfigError as error:
        return None, _once(error.problems)
    return config, _once(config.problems)


def _check_file(path: str, defaults: HostDefaults) -> Config:
    folder, name = os.path.split(os.path.abspath(path))
    if name == MAIN:
        return _Load(folder, defaults, None).all(Listing())
    directory = os.path.dirname(folder) if os.path.basename(folder) == DROP_INS else folder
    return _Load(directory, defaults, None).one(path)


def _once(problems: Sequence[Problem]) -> list[Problem]:
    """One mistake in the host's run: section is a problem of every deployment; a reader needs it once."""
    return list({str(problem): problem for problem in problems}.values())


class _Load:
    """One load."""

    def __init__(self, directory: str, defaults: HostDefaults, last_good: Config | None) -> None:
        self._directory = directory
        self._base = os.path.abspath(directory)
        self._defaults = defaults
        self._last_good = last_good
        self._schema = SchemaCheck()
        self._settings = SettingsReader(self._base)
        self._schedules = ScheduleReader()
        self._checks = HostChecks()

    def all(self, listing: Listing) -> Config:
        """runnerd.yaml and the drop-ins of `listing`."""
        main = self._file(os.path.join(self._directory, MAIN), is_main=True)
        drop_ins = [self._file(path, is_main=False) for path in listing.paths]
        if not listing.known and self._last_good is not None:
            drop_ins = [self._unseen(path) for path in self._last_good.said]
        sections = self._overlaid(main, drop_ins)
        fatal = main.problems() if main.broken_settings() else []
        url, nowhere = self._api_url(main, sections)
        config = self._config([main, *drop_ins], sections, url, listing)
        if fatal or nowhere:
            raise ConfigError([*nowhere, *config.problems])
        return config

    def one(self, path: str) -> Config:
        """The drop-in at `path` by itself; runnerd.yaml gives its defaults where there is one."""
        main = self._file(os.path.join(self._directory, MAIN), is_main=True)
        drop_in = self._file(path, is_main=False)
        sections = self._overlaid(main, [drop_in])
        url, _ = self._api_url(main, sections)
        return self._config([drop_in], sections, url, Listing())

    def _config(self, files: Sequence[_File], sections: Sections, url: str, listing: Listing) -> Config:
        host = self._host_run(sections)
        deployments = without_doubles(DEPLOYMENTS, [self._deployments(file, host) for file in files])
        pools = without_doubles(POOLS, [self._pools(file, host) for file in files])
        problems = list(listing.problems)
        for file, its_deployments, its_pools in zip(files, deployments, pools, strict=True):
            here = [*file.problems(), *its_deployments.found(), *its_pools.found()]
            problems += sorted(here, key=_by_place)
        unseen = None if listing.known else os.path.join(self._directory, DROP_INS)
        last = self._last_good
        deployments_in_force, invalid = settle(DEPLOYMENTS, deployments, last.deployments if last else (), unseen)
        pools_in_force, _ = settle(POOLS, pools, last.pools if last else (), unseen)
        return Config(
            settings=host_settings(sections, hostname=self._defaults.hostname, api_url=url),
            deployments=deployments_in_force,
            problems=tuple(problems),
            files=tuple(file.path for file in files if not file.is_absent),
            invalid=tuple(
                InvalidDeployment(name=item.name, place=item.place, problem=str(item.problems[0])) for item in invalid
            ),
            pools=pools_in_force,
            said={file.path: file.sections for file in files if not file.is_main},
        )

    # --- files and their settings ---

    def _file(self, path: str, *, is_main: bool) -> _File:
        try:
            node = self._node(path, is_main)
        except ConfigError as error:
            flaws = Flaws([])
            for problem in error.problems:
                flaws.add((), problem.message, problem.place)
            return _File(path, is_main, None, flaws, self._said_before(path))
        if node is None:
            return _File(path, is_main, None, Flaws([]), {}, is_absent=True)
        flaws = Flaws(self._schema.file(node))
        sections = self._settings.sections(node, flaws, is_main=is_main)
        file = _File(path, is_main, node, flaws, sections)
        if file.broken_settings():
            file.sections = self._said_before(path) or sections
        return file

    def _unseen(self, path: str) -> _File:
        """A drop-in of a directory that cannot be listed now."""
        return _File(path, False, None, Flaws([]), self._said_before(path), is_absent=True)

    def _said_before(self, path: str) -> Sections:
        """A broken drop-in may be where run.user stands: flows must not fall back to the spawner's user."""
        said: Sections = self._last_good.said.get(path, {}) if self._last_good else {}
        return said

    def _node(self, path: str, is_main: bool) -> Map | None:
        """The file's map; None for a runnerd.yaml that is not there. Raises ConfigError."""
        try:
            text = read_text(path)
        except FileNotFoundError:
            if is_main:
                return None
            raise ConfigError([Problem(message="is gone since the directory was listed", place=Place(path))]) from None
        node = parse(text, file=path)
        if isinstance(node, Map):
            return node
        if node is None and is_main:
            return Map(path, (1, 1))
        raise ConfigError([Problem(message=_not_a_map(node), place=Place(path))])

    def _overlaid(self, main: _File, drop_ins: Sequence[_File]) -> Sections:
        sections: Sections = overlay({}, main.sections, main.flaws)
        for file in drop_ins:
            sections = overlay(sections, file.sections, file.flaws)
        return sections

    def _api_url(self, main: _File, sections: Sections) -> tuple[str, list[Problem]]:
        """What the files say, else PREFECT_API_URL; with the problem when neither says one."""
        said = sections.get("api", Values()).said.get("url")
        if said is not None:
            return str(said), []
        given = self._defaults.api_url
        if given is None:
            message = f"nothing says where Prefect's API is; {_UNSAID}, or set PREFECT_API_URL"
            return EMBEDDED, [] if main.hides_api_url() else [Problem(message=message, place=Place(main.path))]
        try:
            return api_url(given), []
        except ValueError as error:
            return EMBEDDED, [Problem(message=f"the environment's PREFECT_API_URL: {error}")]

    # --- deployments and pools ---

    def _deployments(self, file: _File, host: HostRun) -> FileItems[Deployment]:
        flaws, pull = Flaws([]), Values()
        if file.node is not None and not file.flaws.at("pull"):
            pull = pull_run(file.node, host.table, flaws)
        reader = DeploymentReader(
            checks=self._checks, schedules=self._schedules, host=host, file_pull=pull, pull_flaws=tuple(flaws.all)
        )
        return self._items(DEPLOYMENTS, file, reader.build)

    def _pools(self, file: _File, host: HostRun) -> FileItems[PoolSettings]:
        return self._items(POOLS, file, PoolReader(self._checks, host).build)

    def _items(self, kind: Kind[T], file: _File, build: Callable[[Map, Flaws], T | None]) -> FileItems[T]:
        section = kind.section
        if file.node is None or file.flaws.exactly_at(section):
            refused = [flaw.problem() for flaw in file.flaws.all if flaw.path in ((), (section,))]
            return FileItems(file.path, problem=next(iter(refused), None))
        nodes = file.node.get(section) or ()
        items = [
            read_item(kind, node, _place(nodes, index, node), self._schema.item(section, node), build)
            for index, node in enumerate(nodes)
        ]
        return FileItems(file.path, items)

    def _host_run(self, sections: Sections) -> HostRun:
        return HostRun(
            table=self._settings.run_table,
            said=sections.get("run", Values()),
            python=self._defaults.python,
            user=self._defaults.flow_user,
            base=self._base,
        )


def _not_a_map(node: Json) -> str:
    if node is None:
        return "is empty; write deployments: into it, or remove it"
    hint = "; put it under 'deployments:'" if isinstance(node, List) else "; write deployments: into it"
    return f"must hold a map, not {show(node)}{hint}"


def _place(nodes: Json, index: int, item: Json) -> Place:
    place: Place = item.place() if isinstance(item, Map) else nodes.item_place(index)
    return place


def _by_place(problem: Problem) -> tuple[int, int]:
    return (problem.place.line, problem.place.column) if problem.place else (0, 0)
