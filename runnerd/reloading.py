"""The configuration in force, and how it is replaced by a new reading of the files.

Invariants: what is in force is always a whole configuration; a reading that cannot be used changes nothing; every
reload ends with READY=1, also one that failed, because systemd waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from runnerd.alerts import Alert
from runnerd.config import HostDefaults, load
from runnerd.errors import ConfigError
from runnerd.journal import Journal
from runnerd.logs import Log
from runnerd.model import ApiSettings, Config, Json, Problem, Settings
from runnerd.registrar import Changes, Registrar
from runnerd.systemd import Systemd
from runnerd.views import problem_document

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
        self._one_at_a_time = asyncio.Lock()
        self.refused: tuple[Problem, ...] = ()  # why the last reload changed nothing

    def use(self, registrar: Registrar) -> None:
        """Who is told of the deployments."""
        self._registrar = registrar

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
        self._journal.save_last_good(config)
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
            return _document(Changes(), self.refused, ok=False)
        self.refused = self._fixed_at_start(config)
        config = replace(config, settings=replace(config.settings, api=self._api_of(config)))
        changes = self._put_in_force(config)
        self._log.info("reloaded", added=len(changes.added), changed=len(changes.changed), removed=len(changes.removed))
        pending = await self._wait_until_registered()
        failed = self._registrar_problems()
        return _document(changes, (*self.problems(), *failed, *pending), ok=not self.problems() and not failed)

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


def _document(changes: Changes, problems: tuple[Problem, ...], *, ok: bool) -> Json:
    return {
        "ok": ok,
        "added": list(changes.added),
        "changed": list(changes.changed),
        "removed": list(changes.removed),
        "unchanged": changes.unchanged,
        "problems": [problem_document(problem) for problem in problems],
    }
