"""Marks runs that are started by the host's own `run:`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Marks a run that was requested by its id, and is started by the host's own `run:` instead of a deployment's.

    `entrypoint`: the code that was named in the request; None: that of the run's deployment in the API. `deployment`
    and `flow` are the names that the API has, empty without a deployment. `user`: the host's run.user at the request,
    for whom it was permitted.
    """

    entrypoint: str | None = None
    user: str | None = None
    deployment: str = ""
    flow: str = ""
