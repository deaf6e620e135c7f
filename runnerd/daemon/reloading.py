"""Reloads the configuration: reads the files again and puts the result in force.

Invariants: the configuration in force is always a whole one; a reload that fails changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ConfigError
from runnerd.core.place import Json, Place, Problem, problem_document
from runnerd.core.settings import ApiSettings, Config, PoolSettings
from runnerd.core.wakes import Wakes
from runnerd.deployments.planning import ConfigChanges
from runnerd.deployments.registrar import Registrar
from runnerd.journal.journal import Journal
from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.pools.table import PoolTable

_WAIT_FOR_REGISTERING_S = 60.0  # how long a reload waits until changed deployments are registered


class Reloader:
    """Puts configurations in force: `begin` the one of the start, `reload` each later one."""

    def __init__(
        self,
        *,
        config: ConfigInForce,
        read: Callable[[Config], Config],
        journal: Journal,
        registrar: Registrar,
        pools: PoolTable,
        wakes: Wakes,
        log: Log,
    ) -> None:
        """`read` reads the files and takes what is broken from the configuration passed in. Raises ConfigError."""
        self._config = config
        self._read = read
        self._journal = journal
        self._registrar = registrar
        self._pools = pools
        self._wakes = wakes
        self._log = log
        self._one_at_a_time = asyncio.Lock()

    def begin(self) -> ConfigChanges:
        """Put the configuration that the daemon started with in force."""
        return self._put_in_force(self._config.current)

    def _put_in_force(self, config: Config, *, inspect: bool = False) -> ConfigChanges:
        for problem in config.problems:
            self._log.warning(
                "configuration problem",
                at=problem.place,
                what=problem.message,
                alert=Alert.CONFIG_PROBLEM,
                about={"deployment": problem.deployment},
            )
        for warning in config.warnings:
            self._log.warning("a setting has no effect", at=warning.place, what=warning.message)
        self._config.replace(config)
        self._journal.save_last_good(config)
        self._pools.want(config.pools)
        return self._registrar.plan(config, inspect=inspect)

    async def reload(self, *, inspect: bool = False) -> Json:
        """Read the files and put them in force; return the control API's reload document.

        With `inspect`, all flows are inspected again, also where nothing seems to have changed.
        """
        async with self._one_at_a_time:
            try:
                return await self._reload(inspect=inspect)
            finally:
                self._wakes.status.set()

    async def _reload(self, *, inspect: bool) -> Json:
        in_force = self._config
        try:
            config = await asyncio.to_thread(self._read, in_force.current)
        except ConfigError as error:
            in_force.refused = error.problems
            for problem in error.problems:
                event, alert = "cannot reload; the old configuration stays", Alert.RELOAD_REFUSED
                self._log.error(event, at=problem.place, what=problem.message, alert=alert)
            return _document(ConfigChanges(), ConfigChanges(), in_force.refused, ok=False)
        in_force.refused = _restart_needed(in_force.settings().api, config.settings.api)
        config = _with_old_api(config, in_force.settings().api)
        pools = _pool_changes(in_force.current.pools, config.pools)
        interval_s = in_force.settings().api.poll_interval_s
        changes = self._put_in_force(config, inspect=inspect)
        if config.settings.api.poll_interval_s != interval_s:
            self._wakes.poll_now()  # else the poller would rest until the old interval is over
        of_pools = {f"pools_{word}": count for word, count in _counts(pools).items() if count}
        self._log.info("reloaded", **_counts(changes), **of_pools)
        pending = await self._wait_until_registered()
        failed = self._registrar.problems()
        ok = not in_force.problems() and not failed
        return _document(changes, pools, (*in_force.problems(), *failed, *pending), ok=ok)

    async def _wait_until_registered(self) -> tuple[Problem, ...]:
        """Wait until the deployments are registered; return a problem when that takes too long."""
        try:
            async with asyncio.timeout(_WAIT_FOR_REGISTERING_S):
                await self._registrar.settled.wait()
        except TimeoutError:
            message = "deployments are not registered yet: the API does not answer; they will be when it does"
            return (Problem(message=message),)
        return ()


def _restart_needed(old: ApiSettings, new: ApiSettings) -> tuple[Problem, ...]:
    """Report a change of those API settings that are read at the daemon's start only."""
    if (old.url, old.headers, old.request_timeout_s) == (new.url, new.headers, new.request_timeout_s):
        return ()
    return (Problem(message="api.url, api.headers and api.request_timeout take effect at a restart only"),)


def _with_old_api(config: Config, old: ApiSettings) -> Config:
    """Return the configuration with the API settings that the daemon was started with."""
    api = replace(config.settings.api, url=old.url, headers=old.headers, request_timeout_s=old.request_timeout_s)
    return replace(config, settings=replace(config.settings, api=api))


def _pool_changes(old: Sequence[PoolSettings], new: Sequence[PoolSettings]) -> ConfigChanges:
    """Compare the pools by name; their place in the files and their problem do not count as changes."""
    no_place = Place("")
    before, after = ({pool.name: replace(pool, place=no_place, problem=None) for pool in pools} for pools in (old, new))
    in_both = [name for name in after if name in before]
    changed = tuple(name for name in in_both if before[name] != after[name])
    return ConfigChanges(
        added=tuple(name for name in after if name not in before),
        changed=changed,
        removed=tuple(name for name in before if name not in after),
        unchanged=len(in_both) - len(changed),
    )


def _counts(changes: ConfigChanges) -> dict[str, int]:
    return {"added": len(changes.added), "changed": len(changes.changed), "removed": len(changes.removed)}


def _document(changes: ConfigChanges, pools: ConfigChanges, problems: tuple[Problem, ...], *, ok: bool) -> Json:
    return {
        "ok": ok,
        **_names(changes),
        "pools": _names(pools),
        "problems": [problem_document(problem) for problem in problems],
    }


def _names(changes: ConfigChanges) -> Json:
    return {
        "added": list(changes.added),
        "changed": list(changes.changed),
        "removed": list(changes.removed),
        "unchanged": changes.unchanged,
    }
