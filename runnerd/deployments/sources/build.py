"""Builds the part that keeps the code of deployments pulled."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from runnerd.core.problems import Problems
from runnerd.deployments.sources.credentials import SourceCredentials
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.deployments.sources.pulling import Puller
from runnerd.deployments.sources.state import SourceState
from runnerd.deployments.sources.table import SourceTable
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.prefect_api.client import PrefectApi
from runnerd.processes.link import SpawnerLink
from runnerd.system.ambient import Ambient
from runnerd.system.directories import sources_dir, work_dir
from runnerd.system.paths import Paths


def build_sources(
    *,
    api: PrefectApi,
    link: SpawnerLink,
    environments: Environments,
    calls: BoundedCalls,
    paths: Paths,
    in_use: Callable[[], Collection[str]],
    problems: Problems,
    ambient: Ambient,
) -> SourceKeeper:
    """Build it. `in_use`: the directories of trees that are not to be dropped."""
    state = SourceState(os.path.join(paths.state, "sources.json"))
    return SourceKeeper(
        table=SourceTable(state),
        puller=Puller(
            link=link,
            environments=environments,
            work_dir=work_dir(paths),
            place=sources_dir(paths),
            token=state.token,
        ),
        credentials=SourceCredentials(pools=api.pools, calls=calls, directory=paths.credentials),
        in_use=in_use,
        problems=problems,
        ambient=ambient,
    )
