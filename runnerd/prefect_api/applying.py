"""Creates a deployment, or updates one without touching what others have set in Prefect.

Invariant: each call may be repeated after a lost answer. An upsert (POST /deployments/) replaces all schedules and
their ids, so an existing deployment is changed key by key where its server can do that.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from runnerd.core.errors import ApiAway, ApiDenied, ApiRejected
from runnerd.core.place import Json
from runnerd.core.prefect import DeploymentInfo
from runnerd.prefect_api.answers import DeploymentBody, EnsuredFlow
from runnerd.prefect_api.automations import Automations
from runnerd.prefect_api.parse import parse_deployment, parse_id
from runnerd.prefect_api.reading import ABSENT, PAGE, Reader, in_path
from runnerd.prefect_api.schedule_changes import ScheduleChanges, SentSchedule, lost_keys, plan_schedules
from runnerd.prefect_api.transport import Transport
from runnerd.prefect_api.values import ODD, Unreadable, is_uuid

# What PATCH /deployments/{id} of 2.20 can change to any value.
_CHANGEABLE_2 = frozenset(
    {"version", "description", "tags", "parameters", "path", "entrypoint", "enforce_parameter_schema"}
)
_NOT_CHANGEABLE_3 = frozenset({"labels"})
_OF_NEWER_3 = frozenset({"concurrency_options"})
_NOT_FIELDS = frozenset({"name", "paused", "schedules"})
# Deleted meanwhile; older servers know fewer keys; and PATCH checks parameters where POST does not.
_UPSERT_INSTEAD = frozenset({404, 409, 422})


class DeploymentApplier:
    """Makes PrefectApi's requests that create and update flows and deployments."""

    def __init__(self, *, transport: Transport, reader: Reader) -> None:
        self._transport = transport
        self._reader = reader
        self.automations = Automations(transport=transport)

    async def ensure_flow(self, name: str, tags: Sequence[str] = ()) -> EnsuredFlow:
        """Create the flow of this name if it is missing."""
        reply = await self._transport.request("POST", "/flows/", body={"name": name, "tags": list(tags)})
        flow_id = self._reader.read("a flow", reply.data, parse_id)
        return EnsuredFlow(id=flow_id, is_new=reply.status == HTTPStatus.CREATED)

    async def missing(self, flow_id: str, names: Sequence[str]) -> frozenset[str]:
        """Return those of these names of which the flow has no deployment; none where the answer leaves a doubt.

        At most PAGE names. Raises ApiAway and ApiDenied, but not because of what one answer says.
        """
        chosen = {"flows": {"id": {"any_": [flow_id]}}, "deployments": {"name": {"any_": list(names)}}}
        try:
            body = {**chosen, "limit": PAGE}
            reply = await self._transport.request("POST", "/deployments/filter", body=body, shrinks=True)
            found = {parse_deployment(each).name for each in reply.data} if isinstance(reply.data, list) else None
        except (ApiAway, ApiDenied) as error:
            if not error.may_be_own:
                raise
            return frozenset()
        except (ApiRejected, *ODD):
            return frozenset()
        # More, or others, than were asked for: a server that does not understand the filter as it is meant.
        if found is None or len(reply.data) >= PAGE or not found <= set(names):
            return frozenset()
        return frozenset(names) - found

    async def apply(
        self,
        wanted: DeploymentBody,
        *,
        flow_id: str,
        paused: bool | None,
        sent: Sequence[SentSchedule],
        is_missing: bool = False,
    ) -> DeploymentInfo:
        """Create or update; `paused` None leaves an existing deployment as it is.

        `sent` are the schedules that this host sent last: those not wanted any more are deleted, all others stay.
        `is_missing`: the API has just said that there is no such deployment, so it is not read.
        """
        stored = None if is_missing else await self._find(wanted)
        wanted = _without_unknown_keys(wanted, stored)
        changes = plan_schedules(wanted.json["schedules"], stored["schedules"] if stored else (), sent)
        if stored is None or not await self._change(stored, wanted, changes, paused):
            was_paused = stored["paused"] if stored is not None else False
            return await self._upsert(wanted, changes, flow_id, was_paused if paused is None else paused)
        ids = await self._change_schedules(stored["id"], changes)
        info = parse_deployment(stored)
        return DeploymentInfo(
            id=info.id,
            name=info.name,
            flow_id=info.flow_id,
            paused=info.paused if paused is None else paused,
            schedule_ids=ids,
        )

    async def _find(self, wanted: DeploymentBody) -> Json | None:
        place = in_path(wanted.flow_name, wanted.json["name"])
        if place is None:
            return None  # the upsert is rejected, in the server's words
        reply = await self._transport.request("GET", f"/deployments/name/{place}", values=ABSENT)
        return None if reply.status == 404 else self._reader.read("a deployment", reply.data, _whole_deployment)

    async def _change(
        self, stored: Json, wanted: DeploymentBody, changes: ScheduleChanges, paused: bool | None
    ) -> bool:
        """Change the deployment's own keys; False where only an upsert can, and then nothing was changed."""
        is_3 = "concurrency_limit" in wanted.json  # a key that 2.20 refuses
        fields = {key: value for key, value in wanted.json.items() if key not in _NOT_FIELDS}
        changeable = fields.keys() - _NOT_CHANGEABLE_3 if is_3 else _CHANGEABLE_2
        if not all(_is_stored(key, value, stored) for key, value in fields.items() if key not in changeable):
            return False
        if fields["work_pool_name"] not in (None, stored.get("work_pool_name")):
            return False  # a change into a pool that does not exist is answered with 500, an upsert with 404
        body = {key: value for key, value in fields.items() if key in changeable}
        if paused is not None:
            body["paused"] = paused
        try:
            await self._transport.request("PATCH", f"/deployments/{stored['id']}", body=body)
        except ApiRejected as error:
            if error.status not in _UPSERT_INSTEAD:
                raise
            return False
        return True

    async def _change_schedules(self, deployment_id: str, changes: ScheduleChanges) -> tuple[str, ...]:
        path = f"/deployments/{deployment_id}/schedules"
        ids = list(changes.ids)
        for schedule_id in (*changes.delete, *(ids[position] for position in changes.replace)):
            await self._transport.request("DELETE", f"{path}/{schedule_id}", values=ABSENT)
        for position in changes.update:
            await self._transport.request("PATCH", f"{path}/{ids[position]}", body=changes.whole[position])
        new = [position for position, known in enumerate(ids) if known is None or position in changes.replace]
        if new:
            bodies = [changes.whole[position] for position in new]
            reply = await self._transport.request("POST", path, body=bodies)
            created = self._reader.read("schedules", reply.data, _ids)
            for position, schedule_id in zip(new, created, strict=False):
                ids[position] = schedule_id
        return tuple(known for known in ids if known is not None)

    async def _upsert(
        self, wanted: DeploymentBody, changes: ScheduleChanges, flow_id: str, paused: bool
    ) -> DeploymentInfo:
        """Send the whole deployment, with the schedules of others as they are."""
        bodies = [*changes.whole, *changes.others]
        whole = {**wanted.json, "flow_id": flow_id, "paused": paused, "schedules": bodies}
        reply = await self._transport.request("POST", "/deployments/", body=whole)
        stored = self._reader.read("a deployment", reply.data, _whole_deployment)
        ids = plan_schedules(bodies, stored["schedules"], ()).ids
        at_id = {each["id"]: each for each in stored["schedules"]}
        for body, schedule_id in zip(bodies, ids, strict=True):
            # Both majors drop such keys as max_scheduled_runs from the schedules of an upsert.
            if schedule_id is not None and lost_keys(body, at_id[schedule_id]):
                path = f"/deployments/{stored['id']}/schedules/{schedule_id}"
                await self._transport.request("PATCH", path, body=body)
        info = parse_deployment(stored)
        own_ids = tuple(known for known in ids[: len(changes.whole)] if known is not None)
        return DeploymentInfo(
            id=info.id,
            name=info.name,
            flow_id=info.flow_id,
            paused=info.paused,
            schedule_ids=own_ids,
            is_new=reply.status == HTTPStatus.CREATED,
        )


def _without_unknown_keys(wanted: DeploymentBody, stored: Json | None) -> DeploymentBody:
    """Leave out what is null and not stored either: 3.0.0 to 3.0.2 refuse these keys."""
    unknown = {key for key in _OF_NEWER_3 if wanted.json.get(key) is None and key not in (stored or {})}
    kept = {key: value for key, value in wanted.json.items() if key not in unknown}
    return DeploymentBody(flow_name=wanted.flow_name, json=kept)


def _is_stored(key: str, value: Json, stored: Json) -> bool:
    if key == "job_variables":
        return (value or {}) == (stored.get("job_variables") or stored.get("infra_overrides") or {})
    if key == "labels":
        return (value or {}).items() <= (stored.get("labels") or {}).items()
    if key == "work_queue_name" and value is None and stored.get("work_pool_name") is not None:
        return bool(stored.get(key) == "default")  # the queue of a pool's deployment that names none
    return bool(value == stored.get(key))


def _whole_deployment(data: Json) -> Json:
    """Return the deployment itself, with its schedules; raises Unreadable."""
    parse_deployment(data)
    for each in data["schedules"]:
        if not isinstance(each, dict) or not is_uuid(each.get("id", "")) or not isinstance(each["schedule"], dict):
            raise Unreadable("a schedule is missing")
    return {**data, "paused": data.get("paused") is True}


def _ids(data: Json) -> list[str]:
    return [str(each["id"]) for each in data]
