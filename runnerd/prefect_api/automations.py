"""Makes the automations of an owner: a deployment, as Prefect's own deploy does, or a host.

Invariant: the automations of an owner are deleted before they are made, so a call that was cut short may be repeated,
and those that no owner has, or another one, stay as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote

from runnerd.core.place import Json
from runnerd.prefect_api.failure_words import server_words
from runnerd.prefect_api.reading import ABSENT, REFUSED, refused
from runnerd.prefect_api.transport import Transport

_OF_AUTOMATION = ("name", "description", "enabled")
_OF_RUN = ("parameters", "job_variables", "schedule_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomationRefusal:
    """Means that the server refuses automations: `absent`, because it has none at all."""

    reason: str
    absent: bool = False


def digest_triggers(triggers: Sequence[Json]) -> str:
    """Hash the triggers of a deployment; an empty text for none."""
    if not triggers:
        return ""
    text = json.dumps(list(triggers), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def owner_of(deployment_id: str) -> str:
    """Return the owner of a deployment's automations, which Prefect's deploy deletes by it."""
    return f"prefect.deployment.{deployment_id}"


def automation_body(trigger: Json, deployment_id: str) -> Json:
    """Make the body of the automation for one trigger; older servers do not know the key of a delay, so 0 is none."""
    criteria = {key: value for key, value in trigger.items() if key not in (*_OF_AUTOMATION, *_OF_RUN)}
    run = {key: trigger[key] for key in _OF_RUN if key != "schedule_after" or trigger[key]}
    action = {"type": "run-deployment", "source": "selected", "deployment_id": deployment_id, **run}
    about = {key: trigger[key] for key in _OF_AUTOMATION}
    return {**about, "trigger": criteria, "actions": [action]}


class Automations:
    """Makes PrefectApi's requests about automations."""

    def __init__(self, *, transport: Transport) -> None:
        self._transport = transport

    async def replace(self, owner: str, bodies: Sequence[Json]) -> AutomationRefusal | None:
        """Delete the automations of this owner and make these for it; return what the server refuses.

        One that is refused keeps no other from being made.
        """
        refusal = await self.delete(owner)
        if refusal is not None or not bodies:
            return refusal if bodies else None
        why = [words for body in bodies if (words := await self._make({**body, "owner_resource": owner})) is not None]
        return AutomationRefusal(reason="; ".join(why)) if why else None

    async def _make(self, body: Json) -> str | None:
        reply = await self._transport.request("POST", "/automations/", body=body, values=REFUSED)
        if reply.status < HTTPStatus.BAD_REQUEST:
            return None
        return f"the API refuses {body['name']!r}: {refused(reply).reason}"

    async def delete(self, owner: str) -> AutomationRefusal | None:
        """Delete the automations of this owner; return why the server has none at all."""
        reply = await self._transport.request("DELETE", f"/automations/owned-by/{quote(owner)}", values=ABSENT)
        if reply.status != HTTPStatus.NOT_FOUND:
            return None
        words = server_words(reply.data) or "HTTP 404"
        return AutomationRefusal(reason=f"the server has no automations ({words})", absent=True)
