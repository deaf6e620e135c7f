"""Holds the configuration in force: the result of one load, replaced by that of the next load that succeeds."""

from __future__ import annotations

import asyncio

from runnerd.core.place import Problem
from runnerd.core.settings import Config, Settings


class ConfigInForce:
    """Holds the configuration for every part that reads it; a reload replaces it."""

    def __init__(self, config: Config) -> None:
        self.current = config
        self.replaced = asyncio.Event()  # set whenever another configuration is in force
        self.refused: tuple[Problem, ...] = ()  # why the last reload changed nothing

    def settings(self) -> Settings:
        return self.current.settings

    def problems(self) -> list[Problem]:
        return [*self.refused, *self.current.problems]

    def replace(self, config: Config) -> None:
        self.current = config
        self.replaced.set()
