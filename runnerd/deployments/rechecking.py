"""Has flows inspected again when what they depend on has changed: imported files, packages, the environment file.

Invariant: a deployment is inspected again at most once a minute, and a round without a change costs a few hundred stat
calls outside the event loop.
"""

from __future__ import annotations

import asyncio

from runnerd.core.settings import key_of
from runnerd.deployments.inspector import Inspector
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import Key, Registry
from runnerd.system.ambient import Ambient

RECHECK_EVERY_S = 15.0
INSPECT_EVERY_S = 60.0  # a file that changes all the time costs an interpreter each time
_ROUND_BOUND_S = 3600.0  # the longest time without a beat
_LOOP = "recheck"


class Rechecker:
    """Compares all deployments, every RECHECK_EVERY_S seconds."""

    def __init__(self, *, registry: Registry, inspector: Inspector, registrar: Registrar, ambient: Ambient) -> None:
        self._registry = registry
        self._inspector = inspector
        self._registrar = registrar
        self._log = ambient.log
        self._pulse = ambient.pulse
        self._clock = ambient.clock
        self._inspected_at: dict[Key, float] = {}  # again, because something had changed

    async def run(self) -> None:
        """Compare for ever."""
        while True:
            self._pulse.beat(_LOOP, within_s=_ROUND_BOUND_S)
            await asyncio.sleep(RECHECK_EVERY_S)
            if self._registrar.settled.is_set():  # else the registrar inspects what is left anyway
                await self.check()

    async def check(self) -> None:
        """Compare once."""
        now = self._clock()
        self._inspected_at = {key: at for key, at in self._inspected_at.items() if now - at < INSPECT_EVERY_S}
        deployments = [entry.deployment for entry in self._registry.entries()]
        found = await self._inspector.changed(deployments)
        changed = [one for one in found if key_of(one) not in self._inspected_at]
        if changed:
            self._inspected_at |= {key_of(one): now for one in changed}
            names = [deployment.name for deployment in changed]
            self._log.info("what flows depend on has changed; inspecting them again", deployments=names)
            self._registrar.inspect_again(changed)
