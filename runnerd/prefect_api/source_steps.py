"""Makes the pull steps by which others, such as `prefect flow-run execute`, get the code of a source. Pure.

runnerd itself starts a flow in the tree of its source and never runs these.
"""

from __future__ import annotations

from runnerd.core.place import Json
from runnerd.core.source import Source


def pull_steps_of(source: Source, *, major: int) -> list[Json]:
    """Make the step of a source that is pulled; without its credentials, which Prefect is not to have."""
    if source.kind == "remote":
        return [{"prefect.deployments.steps.pull_from_remote_storage": {"url": source.url}}]
    clone: dict[str, Json] = {"repository": source.url}
    if source.branch or source.tag:
        clone["branch"] = source.branch or source.tag
    if source.include_submodules:
        clone["include_submodules"] = True
    if major >= 3 and source.commit is not None:
        clone["commit_sha"] = source.commit
    if major >= 3 and source.directories:
        clone["directories"] = list(source.directories)
    return [{"prefect.deployments.steps.git_clone": clone}]
