"""Makes the automations of a deployment that was just registered, where its triggers have changed.

Invariants: a deployment is registered whatever becomes of its automations: what is wrong with these is a flaw of it.
Unchanged triggers cost no request, so an automation that somebody has paused in Prefect stays so. Those of a
deployment that this host takes over, or whose triggers left the file, are deleted, as Prefect's own deploy does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from runnerd.core.backoff import Backoff
from runnerd.core.errors import ApiAway, ApiError, ApiRejected
from runnerd.core.place import Problem
from runnerd.core.prefect import DeploymentInfo
from runnerd.core.settings import Deployment
from runnerd.journal.journal import Registration
from runnerd.prefect_api.automations import (
    AutomationRefusal,
    Automations,
    automation_body,
    digest_triggers,
    owner_of,
)

_BUSY_MAX = 10  # tries that a busy server is given before it counts as one that fails
_BUSY_S = 2.0  # the longest wait between two


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggered:
    """What became of the triggers: `digest` of those that are in Prefect, and what is wrong.

    `again`: another time the server may make them.
    """

    digest: str = ""
    flaws: tuple[Problem, ...] = ()
    again: bool = False


class Triggers:
    """Makes the requests about the automations of deployments."""

    def __init__(self, *, automations: Automations, backoff: Callable[[], Backoff]) -> None:
        self._automations = automations
        self._backoff = backoff

    async def apply(self, deployment: Deployment, info: DeploymentInfo, before: Registration | None) -> Triggered:
        """Have the API hold the automations of this deployment. Raises ApiError where it answers nothing."""
        wanted = digest_triggers(deployment.triggers)
        if _are_there(wanted, info, before):
            return Triggered(digest=wanted)
        try:
            refusal = await self._replace(info.id, deployment)
        except ApiError as error:
            if not error.may_be_own:
                raise
            had = _had(before)
            if not deployment.triggers and not had:  # nothing that this host has made
                return Triggered()
            refused = _refused(deployment, str(error), again=not isinstance(error, ApiRejected))
            return replace(refused, digest=had if not deployment.triggers else "")
        if refusal is not None:
            return _refused(deployment, refusal.reason, again=refusal.absent)
        return Triggered(digest=wanted)

    async def _replace(self, deployment_id: str, deployment: Deployment) -> AutomationRefusal | None:
        """Make the requests; repeat them while the server asks for that, as one on SQLite does where writes meet."""
        bodies = [automation_body(trigger, deployment_id) for trigger in deployment.triggers]
        backoff = self._backoff()
        for _ in range(_BUSY_MAX):
            try:
                return await self._automations.replace(owner_of(deployment_id), bodies)
            except ApiAway as error:
                if not error.later:
                    raise
                await asyncio.sleep(backoff.next_s(error, cap_s=_BUSY_S))
        return await self._automations.replace(owner_of(deployment_id), bodies)

    async def drop(self, registration: Registration) -> None:
        """Delete the automations of a deployment that leaves the files. Raises ApiError."""
        if registration.automations or registration.deployment.triggers:
            with suppress(ApiRejected):  # what leaves the files is paused or deleted all the same
                await self._automations.delete(owner_of(registration.deployment_id))


def _are_there(wanted: str, info: DeploymentInfo, before: Registration | None) -> bool:
    if before is None or before.deployment_id != info.id:
        return info.is_new and not wanted
    return before.automations == wanted and bool(wanted or not _had(before))


def _had(before: Registration | None) -> str:
    """Return a digest of what this host has made, or may have made, of the deployment's automations."""
    if before is None:
        return ""
    return before.automations or ("unknown" if before.deployment.triggers else "")


def _refused(deployment: Deployment, why: str, *, again: bool) -> Triggered:
    place = deployment.parameter_places.get("triggers", deployment.place)
    message = f"cannot make the triggers of the deployment: {why}; the deployment is registered all the same"
    flaw = Problem(message=message, place=place, deployment=deployment.name, key="triggers")
    return Triggered(flaws=(flaw,), again=again)
