"""The configuration in force, and how it is replaced by a new reading of the files.

Invariants: what is in force is always a whole configuration; a reading that cannot be used changes nothing; every
reload ends with READY=1, also one that failed, because systemd waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from runnerd.config import HostDefaults, load
from runnerd.control.backend.documents import problem_document
from runnerd.core.errors import ConfigError
from runnerd.core.place import Json, Place, Problem
from runnerd.core.settings import ApiSettings, Config, PoolSettings, Settings
from runnerd.deployments.registrar import Changes, Registrar
from runnerd.journal.journal import Journal
from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.pools.table import PoolTable
from runnerd.system.systemd import Systemd

_REGISTER_S = 60.0  # how long a reload waits until the API has what changed


class ConfigInForce:
    """`begin` puts the first reading in force, `reload` each later one; `reloaded` is called after that."""

    def __init__(
        self,
        *,
        config: Config,
        directory: str,
        defaults: HostDefaults,
        journal: Journal,
        log: Log,
        systemd: Systemd,
        reloaded: Callable[[], None],
    ) -> None:
        self.current = config
        self._directory = directory
        self._defaults = defaults
        self._journal = journal
        self._log = log
        self._systemd = systemd
        self._reloaded = reloaded
        self._registrar: Registrar | None = None
        self._pools = PoolTable()
        self._one_at_a_time = asyncio.Lock()
        self.replaced = asyncio.Event()  # set whenever another one is in force
        self.refused: tuple[Problem, ...] = ()  # why the last reload changed nothing

    def use(self, registrar: Registrar, *, pools: PoolTable) -> None:
        """Who is told of the deployments, and of the work pools."""
        self._registrar = registrar
        self._pools = pools

    def settings(self) -> Settings:
        return self.current.settings

    def problems(self) -> list[Problem]:
        return [*self.refused, *self.current.problems]

    def begin(self) -> Changes:
        return self._put_in_force(self.current)

    def _put_in_force(self, config: Config) -> Changes:
        assert self._registrar is not None
        for problem in config.problems:
            self._log.warning(
                "configuration problem",
                at=problem.place,
                what=problem.message,
                alert=Alert.CONFIG_PROBLEM,
                about={"deployment": problem.deployment},
            )
        self.current = config
        self.replaced.set()
        self._journal.save_last_good(config)
        self._pools.want(config.pools)
        return self._registrar.want(config)

    async def reload(self) -> Json:
        """Read the files again; the reload document of the control API."""
        async with self._one_at_a_time:
            self._systemd.reloading()
            try:
                return await self._reload()
            finally:
                self._systemd.ready()
                self._reloaded()

    async def _reload(self) -> Json:
        try:
            config = await asyncio.to_thread(load, self._directory, defaults=self._defaults, last_good=self.current)
        except ConfigError as error:
            self.refused = error.problems
            for problem in error.problems:
                why, alert = "cannot reload; the old configuration stays", Alert.RELOAD_REFUSED
                self._log.error(why, at=problem.place, what=problem.message, alert=alert)
            return _document(Changes(), Changes(), self.refused, ok=False)
        self.refused = self._fixed_at_start(config)
        config = replace(config, settings=replace(config.settings, api=self._api_of(config)))
        pools = _pool_changes(self.current.pools, config.pools)
        changes = self._put_in_force(config)
        of_pools = {f"pools_{word}": count for word, count in _counts(pools).items() if count}
        self._log.info("reloaded", **_counts(changes), **of_pools)
        pending = await self._wait_until_registered()
        failed = self._registrar_problems()
        return _document(changes, pools, (*self.problems(), *failed, *pending), ok=not self.problems() and not failed)

    def _fixed_at_start(self, config: Config) -> tuple[Problem, ...]:
        old, new = self.current.settings.api, config.settings.api
        if (old.url, old.headers, old.request_timeout_s) == (new.url, new.headers, new.request_timeout_s):
            return ()
        return (Problem(message="api.url, api.headers and api.request_timeout take effect at a restart only"),)

    def _api_of(self, config: Config) -> ApiSettings:
        old, new = self.current.settings.api, config.settings.api
        return replace(new, url=old.url, headers=old.headers, request_timeout_s=old.request_timeout_s)

    async def _wait_until_registered(self) -> tuple[Problem, ...]:
        """Wait for the API, but not for ever: it may be away. What is to be said of that."""
        assert self._registrar is not None
        try:
            async with asyncio.timeout(_REGISTER_S):
                await self._registrar.settled.wait()
        except TimeoutError:
            return (Problem(message="the API has not been told yet; it will be when it answers"),)
        return ()

    def _registrar_problems(self) -> tuple[Problem, ...]:
        assert self._registrar is not None
        return self._registrar.problems()


def _pool_changes(old: Sequence[PoolSettings], new: Sequence[PoolSettings]) -> Changes:
    """By name. A pool that stands elsewhere now, or whose file is broken now, is what it was."""
    nowhere = Place("")
    before, after = ({pool.name: replace(pool, place=nowhere, problem=None) for pool in pools} for pools in (old, new))
    both = [name for name in after if name in before]
    changed = tuple(name for name in both if before[name] != after[name])
    return Changes(
        added=tuple(name for name in after if name not in before),
        changed=changed,
        removed=tuple(name for name in before if name not in after),
        unchanged=len(both) - len(changed),
    )


def _counts(changes: Changes) -> dict[str, int]:
    return {"added": len(changes.added), "changed": len(changes.changed), "removed": len(changes.removed)}


def _document(changes: Changes, pools: Changes, problems: tuple[Problem, ...], *, ok: bool) -> Json:
    return {
        "ok": ok,
        **_names(changes),
        "pools": _names(pools),
        "problems": [problem_document(problem) for problem in problems],
    }


def _names(changes: Changes) -> Json:
    return {
        "added": list(changes.added),
        "changed": list(changes.changed),
        "removed": list(changes.removed),
        "unchanged": changes.unchanged,
    }
