"""Lists the deployments that are still to be registered, and which attempt at each of them is the latest.

Invariant: whatever is listed sets `work` and clears `settled`; nothing else would make the registrar begin it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass

from runnerd.core.settings import Deployment, key_of
from runnerd.deployments.registry import Key


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """One attempt to register a deployment; its tasks do nothing more once another has begun."""

    deployment: Deployment


class Worklist:
    """Lists them. `work`: there is something to begin or to drop; `settled`: set by the registrar when nothing is left.

    `afresh`: the listed ones whose flows are inspected whatever the cache has.
    """

    def __init__(self) -> None:
        self._todo: dict[Key, Deployment] = {}
        self._begun: dict[Key, Begun] = {}
        self._alone: set[Key] = set()  # being inspected alone, which may take long
        self.afresh: set[Key] = set()
        self.work = asyncio.Event()
        self.settled = asyncio.Event()

    def __bool__(self) -> bool:
        return bool(self._todo)

    def replace(self, todo: Mapping[Key, Deployment], *, inspect: bool) -> None:
        """List these and no others; with `inspect`, all of them afresh."""
        self._todo = dict(todo)
        self.afresh = set(todo) if inspect else self.afresh & todo.keys()
        self._begun.clear()
        self._alone.clear()
        self._wake()

    def add(self, deployments: Iterable[Deployment]) -> None:
        """List these too, and begin them anew where they were begun."""
        for deployment in deployments:
            key = key_of(deployment)
            self._todo[key] = deployment
            self._begun.pop(key, None)
            self._alone.discard(key)
            self._wake()

    def _wake(self) -> None:
        self.settled.clear()
        self.work.set()

    def take_off(self, key: Key) -> None:
        """List it no more: it is registered, or has failed."""
        self._todo.pop(key, None)
        if not self._todo:
            self.work.set()  # what waits to be dropped has waited for this

    def not_begun(self) -> list[Deployment]:
        """Return the listed deployments that have not been begun, without those whose code is still being pulled."""
        return [one for key, one in self._todo.items() if key not in self._begun and not one.awaits_tree]

    def lists(self, deployment: Deployment) -> bool:
        """Whether this very declaration is listed: no reload has removed or replaced it."""
        return self._todo.get(key_of(deployment)) is deployment

    def begin(self, deployments: Iterable[Deployment]) -> list[Begun]:
        """Note that an attempt begins at each of these that is listed, and return the attempts."""
        begun = [Begun(one) for one in deployments if self.lists(one)]
        self._begun |= {key_of(one.deployment): one for one in begun}
        return begun

    def failed(self, keys: Collection[Key]) -> list[Begun]:
        """Return the attempts at these that have failed and have not been replaced, to go on with."""
        return [self._begun[key] for key in keys if key in self._begun and key not in self._todo]

    def is_current(self, begun: Begun) -> bool:
        """Whether nothing has replaced the attempt: a reload, or a change of the code."""
        return self._begun.get(key_of(begun.deployment)) is begun

    def note_alone(self, begun: Begun, *, alone: bool) -> None:
        """Note that the flow of a current attempt is being inspected alone, or is not any more."""
        if not self.is_current(begun):
            return
        if alone:
            self._alone.add(key_of(begun.deployment))
        else:
            self._alone.discard(key_of(begun.deployment))

    def names(self) -> list[str]:
        """Name the listed deployments."""
        return [one.name for one in self._todo.values()]

    def pending(self) -> Set[Key]:
        """Return the keys of the deployments that will soon be inspected and registered as they are now."""
        return self._todo.keys() - self._alone
