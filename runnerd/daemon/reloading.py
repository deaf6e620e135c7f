"""Reading the files again, and putting what they say in force.

Invariants: what is in force is always a whole configuration; a reading that cannot be used changes nothing; every
reload ends with READY=1, also one that failed, because systemd waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from runnerd.config.in_force import ConfigInForce
from runnerd.control.backend.documents import problem_document
from runnerd.core.errors import ConfigError
from runnerd.core.place import Json, Place, Problem
from runnerd.core.settings import ApiSettings, Config, PoolSettings
from runnerd.core.wakes import Wakes
from runnerd.deployments.registrar import Changes, Registrar
from runnerd.journal.journal import Journal
from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.pools.table import PoolTable
from runnerd.system.systemd import Systemd

_REGISTER_S = 60.0  # how long a reload waits until the API has what changed


class Reloader:
    """Puts readings of the files in force: `begin` the first one, `reload` each later one."""

    def __init__(
        self,
        *,
        config: ConfigInForce,
        read: Callable[[Config], Config],
        journal: Journal,
        registrar: Registrar,
        pools: PoolTable,
        systemd: Systemd,
        wakes: Wakes,
        log: Log,
    ) -> None:
        """`read` reads the files, and falls back on a last good configuration. Raises ConfigError."""
        self._config = config
        self._read = read
        self._journal = journal
        self._registrar = registrar
        self._pools = pools
        self._systemd = systemd
        self._wakes = wakes
        self._log = log
        self._one_at_a_time = asyncio.Lock()

    def begin(self) -> Changes:
        """Put the reading that the daemon started with in force."""
        return self._put_in_force(self._config.current)

    def _put_in_force(self, config: Config) -> Changes:
        for problem in config.problems:
            self._log.warning(
                "configuration problem",
                at=problem.place,
                what=problem.message,
                alert=Alert.CONFIG_PROBLEM,
                about={"deployment": problem.deployment},
            )
        self._config.replace(config)
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
                self._wakes.status.set()

    async def _reload(self) -> Json:
        held = self._config
        try:
            config = await asyncio.to_thread(self._read, held.current)
        except ConfigError as error:
            held.refused = error.problems
            for problem in error.problems:
                why, alert = "cannot reload; the old configuration stays", Alert.RELOAD_REFUSED
                self._log.error(why, at=problem.place, what=problem.message, alert=alert)
            return _document(Changes(), Changes(), held.refused, ok=False)
        held.refused = _fixed_at_start(held.settings().api, config.settings.api)
        config = _with_fixed(config, held.settings().api)
        pools = _pool_changes(held.current.pools, config.pools)
        changes = self._put_in_force(config)
        of_pools = {f"pools_{word}": count for word, count in _counts(pools).items() if count}
        self._log.info("reloaded", **_counts(changes), **of_pools)
        pending = await self._wait_until_registered()
        failed = self._registrar.problems()
        ok = not held.problems() and not failed
        return _document(changes, pools, (*held.problems(), *failed, *pending), ok=ok)

    async def _wait_until_registered(self) -> tuple[Problem, ...]:
        """Wait until the API has what changed, at most _REGISTER_S; what is left to say after that."""
        try:
            async with asyncio.timeout(_REGISTER_S):
                await self._registrar.settled.wait()
        except TimeoutError:
            return (Problem(message="the API has not been told yet; it will be when it answers"),)
        return ()


def _fixed_at_start(old: ApiSettings, new: ApiSettings) -> tuple[Problem, ...]:
    if (old.url, old.headers, old.request_timeout_s) == (new.url, new.headers, new.request_timeout_s):
        return ()
    return (Problem(message="api.url, api.headers and api.request_timeout take effect at a restart only"),)


def _with_fixed(config: Config, old: ApiSettings) -> Config:
    """The configuration with what counts from the start of the daemon until its end."""
    api = replace(config.settings.api, url=old.url, headers=old.headers, request_timeout_s=old.request_timeout_s)
    return replace(config, settings=replace(config.settings, api=api))


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
