"""Finds the code of one run: a run keeps the tree of its source that it was first started in."""

from __future__ import annotations

from runnerd.core.machine import RunRecord
from runnerd.core.place import Json
from runnerd.core.settings import Deployment
from runnerd.core.source import Tree
from runnerd.deployments.sources.documents import note_source
from runnerd.deployments.sources.keeper import SourceKeeper, in_tree


class RunCode:
    """Finds the trees of runs of flows and of commands, and makes what their records say of them."""

    def __init__(self, *, sources: SourceKeeper) -> None:
        self._sources = sources

    async def find(self, record: RunRecord, deployment: Deployment) -> Deployment | str:
        """Return the deployment with the tree of this run, the one it has or the one in force; or why there is none.

        Pulls first where the last pull is older than the interval.
        """
        return _in_tree_of(record, deployment) or await self._sources.fresh(deployment)

    def find_known(self, record: RunRecord, deployment: Deployment) -> Deployment | str:
        """Return what `find` would at once, without a pull."""
        located = _in_tree_of(record, deployment) or self._sources.locate(deployment)
        if located.awaits_tree:
            return f"its code cannot be pulled: {self._sources.why_not(deployment) or 'this is under way'}"
        return located

    def note(self, record: RunRecord, deployment: Deployment) -> dict[str, Json]:
        """Return the fields of the run's record that say which tree it is started in."""
        if deployment.source is None or record.source is not None:
            return {}
        return {"source": note_source(deployment, self._sources.of(deployment))}


def _in_tree_of(record: RunRecord, deployment: Deployment) -> Deployment | None:
    """Return the deployment with the tree that the run was started in; None for one that was not started yet."""
    directory = record.source.get("directory") if record.source is not None else None
    if record.source is None or directory is None:
        return None
    # An earlier daemon may have started the process already, and hooks belong to what was run.
    return in_tree(deployment, Tree(commit=record.source["commit"], directory=directory))
