"""Keeps the code of deployments pulled: before the first run, at every pull_interval, and before a run that is later.

Invariants: a run is never kept waiting for a pull longer than WAIT_MAX_S, and goes on with the last good tree; a source
that fails or hangs holds up no other; a version is in force only once its tree is whole, and its tree is dropped only
when no deployment and no run uses it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace

from runnerd.core.place import Problem
from runnerd.core.problems import Problems
from runnerd.core.settings import Config, Deployment
from runnerd.core.source import Tree
from runnerd.deployments.sources.credentials import SourceCredentials
from runnerd.deployments.sources.pulling import Pulled, Puller, Wanted
from runnerd.deployments.sources.table import (
    PulledSource,
    SourceTable,
    entrypoint_path,
    key_of_store,
    store_name,
    store_of,
)
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

AT_ONCE = 4
FAILING_AT_ONCE = 2  # of those whose last pull has failed: that servers hang must not keep the others waiting
WAIT_MAX_S = 30.0  # of a run whose source was not pulled for longer than its interval
_LOOP = "pull"
_OUTSIDE = "its entrypoint {} leads out of the tree of its source"


class SourceKeeper:
    """Pulls the sources of the deployments in force. `in_use`: the directories of trees that are not to be dropped.

    `moved` is set when a source has another tree, or has been tried for the first time.
    """

    def __init__(
        self,
        *,
        table: SourceTable,
        puller: Puller,
        credentials: SourceCredentials,
        in_use: Callable[[], Collection[str]],
        problems: Problems,
        ambient: Ambient,
    ) -> None:
        self._table = table
        self._puller = puller
        self._credentials = credentials
        self._in_use = in_use
        self._ambient = ambient
        self._contained = Containment(log=ambient.log, loop=_LOOP, passing=())
        self._tasks: asyncio.TaskGroup | None = None
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._failing_at_once = asyncio.Semaphore(FAILING_AT_ONCE)
        self._stores: dict[tuple[str | None, str], asyncio.Lock] = {}
        self._due = asyncio.Event()
        self.moved = asyncio.Event()
        problems.register(self.problems)

    # --- what is in force -------------------------------------------------------------------------------------------

    def take(self, config: Config) -> Config:
        """Take the sources of a configuration; return it with the trees of those that were pulled."""
        self._table.replace(config.deployments)
        self._due.set()
        self.moved.set()  # else nobody says again why a source that was tried before cannot be pulled
        return replace(config, deployments=tuple(self.locate(one) for one in config.deployments))

    def locate(self, deployment: Deployment) -> Deployment:
        """Return the deployment with the tree in force; as it is where it has none that it may run in."""
        one = self._table.of(deployment)
        if one is None or one.tree is None or self.why_not(deployment) is not None:
            return deployment
        return in_tree(deployment, one.tree)

    def why_not(self, deployment: Deployment) -> str | None:
        """Say why the deployment cannot run from its source; None where it can, or a first pull is still under way."""
        one = self._table.of(deployment)
        if one is None:
            return None
        path = entrypoint_path(deployment.entrypoint)
        if path in one.outside:
            return _OUTSIDE.format(path)
        return one.problem if one.tree is None else None

    async def fresh(self, deployment: Deployment) -> Deployment | str:
        """Return the deployment with the tree for a run that begins now, or one sentence why there is none.

        Pulls first where the last pull is older than the interval; what it waits for is bounded.
        """
        one = self._table.of(deployment)
        if one is None:
            return "its source is not in the files any more" if deployment.awaits_tree else deployment
        if one.is_due(self._ambient.clock()) or one.tree is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_MAX_S):
                    await self.pull(deployment)
        why = self.why_not(deployment)
        located = self.locate(deployment)
        if why is not None or located.awaits_tree:
            return f"its code cannot be pulled: {why or 'this is under way'}"
        return located

    def of(self, deployment: Deployment) -> PulledSource | None:
        """Return what is known of the deployment's source; None where its code is not pulled."""
        return self._table.of(deployment)

    def problems(self) -> Iterable[Problem]:
        """Return why sources cannot be pulled. Where there is no tree at all, the deployments say so themselves."""
        for one in self._table.all():
            if one.problem is not None and one.tree is not None:
                words = f"cannot pull {one.source.describe()}: {one.problem}; runs use {one.tree.commit[:12]}"
                first = one.deployments[0]
                yield Problem(message=words, place=first.place, deployment=first.name)

    # --- pulling ----------------------------------------------------------------------------------------------------

    async def pull(self, deployment: Deployment, *, afresh: bool = False) -> str | None:
        """Pull now, or wait for the pull that is under way; None, or one sentence why it has failed.

        `afresh`: one that is under way is waited for and repeated, because it may have read what was there before.
        """
        one = self._table.of(deployment)
        if afresh and one is not None and one.pull is not None:
            await asyncio.wait([one.pull])
        task = self._begin(one) if one is not None else None
        return await asyncio.shield(task) if task is not None else "runnerd is starting; try again in a moment"

    async def hold(self, deployment: Deployment, commit: str) -> str | None:
        """Hold this commit until it is released; None, or one sentence why it cannot be: then nothing is changed."""
        one = self._table.of(deployment)
        assert one is not None
        before, one.state = one.state, replace(one.state, held=commit)
        why = await self.pull(deployment, afresh=True)
        if why is not None:
            one.state, one.problem = replace(one.state, held=before.held), None
        self._save(one)
        return why

    async def release(self, deployment: Deployment) -> str | None:
        """Follow the source again; None, or one sentence why it cannot be pulled just now."""
        one = self._table.of(deployment)
        assert one is not None
        one.state = replace(one.state, held=None)
        self._save(one)
        return await self.pull(deployment, afresh=True)

    async def run(self) -> None:
        """Pull what is due, for ever."""
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                self._ambient.pulse.beat(_LOOP, within_s=float("inf"))
                self._due.clear()
                now = self._ambient.clock()
                for one in self._table.all():
                    if one.is_due(now):
                        self._begin(one)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s(now)):
                        await self._due.wait()

    def _pause_s(self, now: float) -> float | None:
        """Return the time until the next source is due; one that is being pulled ends the pause by itself."""
        idle = [one for one in self._table.all() if one.pull is None or one.pull.done()]
        return min((max(0.0, (one.tried_at or now) + one.source.pull_interval_s - now) for one in idle), default=None)

    def _begin(self, one: PulledSource) -> asyncio.Task[str | None] | None:
        if self._tasks is None:
            return None  # the runs of the last daemon are not adopted yet, and a pull could drop their trees
        if one.pull is None or one.pull.done():
            one.tried_at = self._ambient.clock()
            one.pull = self._tasks.create_task(self._pull_contained(one))
        return one.pull

    async def _pull_contained(self, one: PulledSource) -> str | None:
        with self._contained.item(one.source.describe()) as item:
            await self._pull(one)
        if item.why is not None:
            self._note(one, item.why)
        self._due.set()
        return one.problem

    async def _pull(self, one: PulledSource) -> None:
        login = await self._credentials.read(one.source)
        if isinstance(login, str):
            return self._note(one, login)
        store = self._stores.setdefault(key_of_store(one), asyncio.Lock())
        held = one.state.held
        async with store, self._failing_at_once if one.problem is not None else self._at_once:
            used = {*self._in_use(), *self._trees()}
            its = store_name(one.source)
            wanted = Wanted(
                source=one.source,
                run=one.run,
                login=login,
                commit=held,
                entrypoints=one.entrypoints(),
                keep=sorted({os.path.basename(path) for path in used if store_of(path) == its}),
                history=one.state.history,
                stores=sorted({*map(store_of, used), *(store_name(each.source) for each in self._table.all())}),
            )
            found = await self._puller.pull(wanted)
            if isinstance(found, str):
                return self._note(one, found)
            return self._take(one, found)

    def _trees(self) -> Iterable[str]:
        return [one.tree.directory for one in self._table.all() if one.tree is not None]

    def _take(self, one: PulledSource, found: Pulled) -> None:
        was_outside, one.outside = one.outside, found.outside
        if one.problem is not None:
            self._ambient.log.info("a source is pulled again", source=one.source.describe())
        one.problem = None
        is_new = one.take(found.tree, self._ambient.now())
        if is_new:
            self._save(one)
            names = [deployment.name for deployment in one.deployments]
            fields = {"source": one.source.describe(), "commit": found.tree.commit, "deployments": names}
            self._ambient.log.info("a source has a new version", **fields)
        if is_new or was_outside != one.outside or not one.tried:
            self.moved.set()
        one.tried = True

    def _note(self, one: PulledSource, why: str) -> None:
        if one.problem != why:
            names = [deployment.name for deployment in one.deployments]
            self._ambient.log.warning("cannot pull a source", source=one.source.describe(), why=why, deployments=names)
        if one.problem != why or not one.tried:
            self.moved.set()
        one.problem, one.tried = why, True

    def _save(self, one: PulledSource) -> None:
        try:
            self._table.save(one)
        except OSError as error:
            words = "cannot save which version of a source is in force; the next start pulls it again"
            self._ambient.log.warning(words, source=one.source.describe(), why=error.strerror)


def in_tree(deployment: Deployment, tree: Tree) -> Deployment:
    """Return the deployment with its code in `tree`."""
    return replace(deployment, tree=tree, run=replace(deployment.run, working_directory=tree.directory))
