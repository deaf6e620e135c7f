"""Carries out what the control API asks of the source of a deployment: pull it now, hold a commit, release it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine

from runnerd.control.contract import Refused, SourceChange
from runnerd.core.settings import Deployment
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.deployments.sources.table import PulledSource

_WAIT_MAX_S = 50.0  # below the client's limit
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_NO_SOURCE = "its code is in a directory of this host: only a source of git or remote is pulled"


class SourceChanges:
    """Carries out changes; one that takes longer than its answer may goes on."""

    def __init__(self, *, sources: SourceKeeper) -> None:
        self._sources = sources
        self._under_way: set[asyncio.Future[str | None]] = set()

    async def carry_out(self, deployment: Deployment, change: SourceChange) -> Refused | None:
        """Carry out a change; None, or why it was not."""
        one = self._sources.of(deployment)
        work = _NO_SOURCE if one is None else _work(self._sources, deployment, one, change)
        if one is None or isinstance(work, str):
            return Refused(status=409, detail=f"cannot {change.verb} {deployment.name}: {work}")
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        what = one.source.describe()
        try:
            async with asyncio.timeout(_WAIT_MAX_S):
                why = await asyncio.shield(task)
        except TimeoutError:
            return Refused(status=503, detail=f"pulling {what} takes long and goes on; see runnerctl status")
        why = why or self._sources.why_not(deployment)  # pulled, but its entrypoint leads out of the tree
        return None if why is None else Refused(status=409, detail=f"cannot pull {what}: {why}")

    def locate(self, deployment: Deployment) -> Deployment:
        """Return the deployment with the tree in force."""
        return self._sources.locate(deployment)


def _work(
    sources: SourceKeeper, deployment: Deployment, one: PulledSource, change: SourceChange
) -> Coroutine[None, None, str | None] | str:
    """Return what is to be done, or one sentence why it cannot be."""
    if change.verb == "pull":
        return sources.pull(deployment, afresh=True)
    if change.release:
        return sources.release(deployment)
    commit = one.version(change.commit)
    if commit is None and change.commit is not None and _COMMIT.fullmatch(change.commit) and one.source.kind == "git":
        commit = change.commit
    if commit is not None:
        return sources.hold(deployment, commit)
    if change.commit is None:
        return "runnerd knows no version before the one in force; name a commit"
    return f"{change.commit} is none of the last versions here; write the whole commit id"
