"""Holds the configuration in force: the result of one load, replaced by that of the next load that succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runnerd.core.place import Problem
from runnerd.core.settings import Config, Settings


class ConfigInForce:
    """Holds the configuration for every part that reads it; a reload replaces it."""

    def __init__(self, config: Config) -> None:
        self.current = config
        self.replaced = asyncio.Event()  # set whenever another configuration is in force
        self._subscribers: list[Callable[[], None]] = []
        self.refused: tuple[Problem, ...] = ()  # why the last reload changed nothing, or not all

    def settings(self) -> Settings:
        return self.current.settings

    def host_name(self) -> str:
        """The name of this host, which is also that of its worker in each pool."""
        return self.current.settings.name

    def problems(self) -> list[Problem]:
        """Return why the last reload changed nothing, and what is wrong with what is in force; each problem once."""
        return list(dict.fromkeys((*self.refused, *self.current.problems)))

    def replace(self, config: Config) -> None:
        self.current = config
        self.replaced.set()
        for changed in self._subscribers:
            changed()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever another configuration is in force; `replaced` has one waiter only."""
        self._subscribers.append(changed)
