"""The automations of FakePrefect: as strict with bodies as the servers are, for what runnerd sends."""

from __future__ import annotations

import uuid
from typing import Any

Json = Any
OFF = (
    "Automations are not enabled. Please enable the PREFECT_EXPERIMENTAL_EVENTS and"
    " PREFECT_API_SERVICES_TRIGGERS_ENABLED settings."
)
_KEYS = set(
    "name description enabled tags trigger actions actions_on_trigger actions_on_resolve owner_resource".split()
)
_KINDS = {
    "event": {"match", "match_related", "after", "expect", "for_each", "posture", "threshold", "within"},
    "compound": {"triggers", "within", "require"},
    "sequence": {"triggers", "within"},
}


class FakeAutomations:
    """`made` by id, with the owner of each; `enabled` False is a server 2.20 without PREFECT_EXPERIMENTAL_EVENTS."""

    def __init__(self) -> None:
        self.enabled = True
        self.made: dict[str, Json] = {}

    def owned_by(self, deployment_id: str) -> list[Json]:
        """The automations of a deployment, by name."""
        owner = f"prefect.deployment.{deployment_id}"
        return sorted(
            (one for one in self.made.values() if one["owner_resource"] == owner), key=lambda one: one["name"]
        )

    def route(self, method: str, rest: list[str], body: Json) -> tuple[int, Json] | None:
        if not self.enabled:
            return 404, {"detail": OFF}
        match (method, *rest):
            case ("POST",):
                wrong = self._flaw(body)
                if wrong is not None:
                    return 422, {"exception_message": "Invalid request received.", "exception_detail": [wrong]}
                self.made[made := str(uuid.uuid4())] = body
                return 201, {**body, "id": made}
            case ("DELETE", "owned-by", owner):
                self.made = {key: one for key, one in self.made.items() if one["owner_resource"] != owner}
                return 202, None
        return None

    def _flaw(self, body: Json) -> Json | None:
        if body.keys() - _KEYS:
            return {"loc": ["body", *(body.keys() - _KEYS)], "msg": "Extra inputs are not permitted"}
        return self._flaw_of(body["trigger"], ["body", "trigger"])

    def _flaw_of(self, trigger: Json, at: list[str]) -> Json | None:
        known = _KINDS.get(trigger.get("type"))
        if known is None:
            return {"loc": [*at, "type"], "msg": "Input should be 'event', 'compound' or 'sequence'"}
        if {"type", *known} != trigger.keys():
            return {"loc": at, "msg": "Extra inputs are not permitted, or a field is required"}
        inner = (self._flaw_of(one, [*at, "triggers"]) for one in trigger.get("triggers", ()))
        return next((flaw for flaw in inner if flaw is not None), None)
