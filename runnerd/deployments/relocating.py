"""Has deployments follow the versions of their sources: a new tree is inspected and registered again by itself."""

from __future__ import annotations

from dataclasses import replace

from runnerd.core.settings import key_of
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import Key, Registry
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment


class Relocator:
    """Puts the trees in force into the registry whenever a source has another one."""

    def __init__(self, *, sources: SourceKeeper, registry: Registry, registrar: Registrar, ambient: Ambient) -> None:
        self._sources = sources
        self._registry = registry
        self._registrar = registrar
        self._failed: set[Key] = set()
        self._contained = Containment(log=ambient.log, loop="relocate", passing=())

    async def run(self) -> None:
        """Follow the sources for ever."""
        while True:
            await self._sources.moved.wait()
            self._sources.moved.clear()
            with self._contained.item("round"):
                self.relocate()

    def relocate(self) -> None:
        """Compare every deployment with its source once."""
        moved = []
        for entry in self._registry.entries():
            why = self._sources.why_not(entry.deployment)
            key = key_of(entry.deployment)
            if why is not None:
                self._failed.add(key)
                self._registrar.fail(entry.deployment, f"its code cannot be pulled: {why}")
                continue
            located = self._sources.locate(entry.deployment)
            if located.tree != entry.deployment.tree or (key in self._failed and not located.awaits_tree):
                self._failed.discard(key)
                self._registry.put(replace(entry, deployment=located))
                moved.append(located)
        self._failed = {key for key in self._failed if self._registry.get(key) is not None}
        if moved:
            self._registrar.inspect_again(moved)
