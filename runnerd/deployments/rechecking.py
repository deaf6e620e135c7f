"""Has flows inspected again when what they depend on has changed: imported files, packages, the environment file.

Invariant: a deployment is inspected again at most once a minute, and the less often the longer it changes all the time,
as generated code does; a round without a change costs a few hundred stat calls outside the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runnerd.core.settings import Deployment, key_of
from runnerd.deployments.inspector import Inspector
from runnerd.deployments.registrar import Registrar
from runnerd.deployments.registry import Key, Registry
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

RECHECK_EVERY_S = 15.0
INSPECT_GAP_MIN_S = 60.0  # each inspection is the start of an interpreter
INSPECT_GAP_MAX_S = 3600.0
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
        self._contained = Containment(log=ambient.log, loop=_LOOP, passing=())
        self._gaps: dict[Key, tuple[float, float]] = {}  # when it was inspected again, and the gap after that

    async def run(self) -> None:
        """Compare for ever."""
        while True:
            self._pulse.beat(_LOOP, within_s=_ROUND_BOUND_S)
            await asyncio.sleep(RECHECK_EVERY_S)
            with self._contained.item("round"):
                await self.check()

    async def check(self) -> None:
        """Compare once."""
        deployments = [entry.deployment for entry in self._registry.entries()]
        self._inspector.forget_others(deployments)
        found = await self._find_changed(deployments)
        # The registrar inspects what is pending anyway.
        settled = [one for one in found if key_of(one) not in self._registrar.pending()]
        changed = [one for one in settled if self._may_inspect(key_of(one))]
        self._gaps = {key: gap for key, gap in self._gaps.items() if self._registry.get(key) is not None}
        if changed:
            names = [deployment.name for deployment in changed]
            self._log.info("what flows depend on has changed; inspecting them again", deployments=names)
            self._registrar.inspect_again(changed)

    async def _find_changed(self, deployments: Sequence[Deployment]) -> list[Deployment]:
        """Compare all deployments together; where that goes wrong, each by itself, without those that it is about."""
        with self._contained.item("comparison"):
            return await self._inspector.changed(deployments)
        found: list[Deployment] = []
        for one in deployments:
            with self._contained.item(f"deployment {one.name}"):
                found += await self._inspector.changed([one])
        return found

    def _may_inspect(self, key: Key) -> bool:
        """Whether the gap after the last inspection is over; if so, note the next one."""
        now = self._clock()
        at, gap = self._gaps.get(key, (float("-inf"), 0.0))
        if now - at < gap:
            return False
        is_soon = now - at < 2 * gap
        self._gaps[key] = (now, min(2 * gap, INSPECT_GAP_MAX_S) if is_soon else INSPECT_GAP_MIN_S)
        return True
