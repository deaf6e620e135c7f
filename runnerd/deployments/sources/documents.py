"""Makes what records and documents say of a source: its kind, its URL without secrets, and the version. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from runnerd.core.exit_words import time_text
from runnerd.core.place import Json
from runnerd.core.settings import Deployment
from runnerd.core.source import without_secrets
from runnerd.deployments.sources.table import PulledSource


def note_source(deployment: Deployment, one: PulledSource | None) -> dict[str, Json] | None:
    """Make what the record of a run says of its source: the document's fields, and the tree's directory."""
    source, tree = deployment.source, deployment.tree
    if source is None:
        return None
    return {
        "kind": source.kind,
        "url": without_secrets(source.url),
        "commit": tree.commit if tree is not None else None,
        "pulled_at": time_text(one.pulled_at) if one is not None else None,
        "problem": one.problem if one is not None else None,
        "directory": tree.directory if tree is not None else None,
    }


def run_source_document(noted: Mapping[str, Json] | None) -> Json:
    """Return the document of a run's source; None where the run's code is in a directory of the host."""
    if noted is None:
        return None
    return {name: noted.get(name) for name in ("kind", "url", "commit", "pulled_at", "problem")}


def source_document(deployment: Deployment, one: PulledSource | None) -> Json:
    """Return the document of a deployment's source; None for one whose code is in run.working_directory."""
    noted = run_source_document(note_source(deployment, one))
    if noted is None:
        return None
    return {**noted, "held": one.state.held if one is not None else None}
