"""Reloads the configuration: reads the files again and puts the result in force.

Invariants: the configuration in force is always a whole one; a reload that fails changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from runnerd.config.host_changes import list_host_changes, list_restart_needed, with_fixed_settings
from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ConfigError
from runnerd.core.place import Json, Place, Problem, problem_document
from runnerd.core.settings import Config, PoolSettings
from runnerd.core.wakes import Wakes
from runnerd.daemon.served_scripts import ServedScripts
from runnerd.daemon.settling import Settling
from runnerd.deployments.planning import ConfigChanges
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.journal.journal import Journal
from runnerd.launch.credentials_in_force import CredentialsInForce
from runnerd.log.alerts import Alert
from runnerd.log.log import Log
from runnerd.pools.keeper import PoolKeeper
from runnerd.pools.table import PoolTable
from runnerd.prefect_api.client import PrefectApi


class Reloader:
    """Puts configurations in force: `begin` the one of the start, `reload` each later one."""

    def __init__(
        self,
        *,
        config: ConfigInForce,
        read: Callable[[Config], Config],
        scripts: ServedScripts,
        journal: Journal,
        registrar: Registrar,
        sources: SourceKeeper,
        pools: PoolTable,
        served: PoolKeeper,
        credentials: CredentialsInForce,
        api: PrefectApi,
        settling: Settling,
        wakes: Wakes,
        log: Log,
    ) -> None:
        """`read` reads the files and takes what is broken from the configuration passed in. Raises ConfigError."""
        self._config = config
        self._read = read
        self._scripts = scripts
        self._journal = journal
        self._registrar = registrar
        self._sources = sources
        self._pools = pools
        self._served = served
        self._credentials = credentials
        self._api = api
        self._settling = settling
        self._wakes = wakes
        self._log = log
        self._one_at_a_time = asyncio.Lock()

    def begin(self) -> ConfigChanges:
        """Put the configuration that the daemon started with in force."""
        self._scripts.want(self._config.current)
        return self._put_in_force(self._config.current)

    async def run_scripts(self) -> None:
        """Put in force, for ever, what scripts serve once they have been read."""
        while True:
            await self._scripts.changed.wait()
            async with self._scripts.entering:
                self._scripts.changed.clear()
                changes = self._put_in_force(await self._scripts.enter(self._config.current))
            self._log.info("took what scripts serve", **_counts(changes))
            self._wakes.status.set()

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
        self._scripts.note_in_force()
        return self._registrar.plan(self._sources.take(config), inspect=inspect)

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
            return self._refuse(error.problems)
        host = list_host_changes(in_force.settings(), config)
        in_force.refused = list_restart_needed(host)
        config = with_fixed_settings(in_force.current, config)
        pools = _pool_changes(in_force.current.pools, config.pools)
        interval_s = in_force.settings().api.poll_interval_s
        async with self._scripts.entering:
            self._scripts.want(config, afresh=inspect)
            config = await self._scripts.enter(in_force.current)
            changes = self._put_in_force(config, inspect=inspect)
        await self._renew_credentials()
        if config.settings.api.poll_interval_s != interval_s:
            self._wakes.poll_now()  # else the poller would rest until the old interval is over
        of_pools = {f"pools_{word}": count for word, count in _counts(pools).items() if count}
        keys = ", ".join(change.key for change in host) or None
        self._log.info("reloaded", **_counts(changes), **of_pools, settings=keys)
        pending = await self._settling.wait()
        wrong = (*in_force.problems(), *self._credentials.problems(), *self._registrar.problems())
        wrong += tuple(self._served.placed_problems())
        return {
            "ok": not wrong,
            "applied": True,
            "settled": not pending,
            "settings": [change.document() for change in host],
            **_document(changes, pools, (*wrong, *self._registrar.flaws(), *pending)),
        }

    async def _renew_credentials(self) -> None:
        """Read the credential files again, for the next request of the daemon."""
        await self._credentials.renew()
        self._api.transport.renew_credentials()
        for problem in self._credentials.problems():
            about = {"at": problem.place, "what": problem.message}
            self._log.warning("cannot read the credentials", **about, alert=Alert.CONFIG_PROBLEM)

    def _refuse(self, problems: tuple[Problem, ...]) -> Json:
        """Leave everything as it is, because the files cannot be used as a whole."""
        self._config.refused = problems
        for problem in problems:
            event, alert = "cannot reload; the old configuration stays", Alert.RELOAD_REFUSED
            self._log.error(event, at=problem.place, what=problem.message, alert=alert)
        about = {"ok": False, "applied": False, "settled": self._registrar.settled.is_set(), "settings": []}
        return {**about, **_document(ConfigChanges(), ConfigChanges(), problems)}


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


def _document(changes: ConfigChanges, pools: ConfigChanges, problems: tuple[Problem, ...]) -> Json:
    return {
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
