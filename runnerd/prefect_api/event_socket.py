"""Subscribes to Prefect's events over a WebSocket (servers of Prefect 3, `/events/out`) and reads what concerns a host.

An event says only that it is worth asking: what a run's state is, and whose the run is, the API answers. So an event
that is lost, forged or late costs time or a request, and nothing else (ADR 31).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from runnerd.core.place import Json
from runnerd.prefect_api.failure_words import broken_words
from runnerd.prefect_api.prefect_socket import SocketAccess, open_socket, read_json
from runnerd.prefect_api.values import is_uuid
from runnerd.prefect_api.websocket import Closed, Refusal, WebSocket

_CLOCKS_APART = timedelta(hours=1)  # at most, of this host and of whoever makes events
_RUN = "prefect.flow-run."
_DEPLOYMENT = "prefect.deployment."
# Runs that may start now, runs to cancel, and what may let runs start or keep them from it.
STARTS = frozenset({"Scheduled", "AwaitingRetry", "Resuming"})
CANCELS = frozenset({"Cancelling", "Cancelled"})
OWN = "runnerd.host."
CONNECTED, LISTENING = OWN + "connected", OWN + "listening"
_PREFIXES = (
    *(_RUN + state for state in sorted(STARTS | CANCELS)),
    _DEPLOYMENT,
    "prefect.work-pool.",
    "prefect.work-queue.",
    OWN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefectEvent:
    """Holds what an event is about: its name, the ids of its run and deployment, and the name of its work pool."""

    id: str | None = None
    name: str
    run_id: str | None = None
    deployment_id: str | None = None
    pool: str | None = None

    @property
    def run_state(self) -> str | None:
        """The name of the state that a run has entered; None where the event is not about a run."""
        return self.name.removeprefix(_RUN) if self.name.startswith(_RUN) else None


class EventSocket:
    """One subscription. `receive` may be called until it returns Closed."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> PrefectEvent | Closed | None:
        """Return the next event; None for a message that is none; why there are no more."""
        message = await self._socket.receive()
        return message if isinstance(message, Closed) else parse_event(message)

    async def close(self) -> None:
        """Close the connection."""
        await self._socket.close()


async def subscribe(access: SocketAccess, *, now: Callable[[], datetime]) -> EventSocket | Refusal:
    """Subscribe to the events of the API from now on. Raises ApiDenied when the credentials cannot be read."""
    socket = await open_socket(access, "/events/out")
    return socket if isinstance(socket, Refusal) else await choose_events(socket, since=now())


async def choose_events(socket: WebSocket, *, since: datetime) -> EventSocket | Refusal:
    """Choose the events of an open connection."""
    try:
        await socket.send(json.dumps({"type": "filter", "backfill": False, "filter": _filter(since)}))
    except OSError as error:  # TimeoutError too
        await socket.close()
        return Refusal(why=broken_words(error))
    return EventSocket(socket)


def _filter(since: datetime) -> Json:
    # Without `until` a server sends events until the moment of the subscription only. An event has the time of who made
    # it: by a clock that is behind this host's, new events would be from before the subscription.
    occurred = {"since": (since - _CLOCKS_APART).isoformat(), "until": "9998-12-31T00:00:00Z"}
    return {"event": {"prefix": list(_PREFIXES)}, "occurred": occurred}


def parse_event(text: str) -> PrefectEvent | None:
    """Read one message of the stream; None when it is no event of a run, a deployment, a work pool or a queue."""
    message = read_json(text)
    event = message.get("event") if isinstance(message, dict) else None
    name = event.get("event") if isinstance(event, dict) else None
    if not isinstance(event, dict) or not isinstance(name, str) or not name.startswith(_PREFIXES):
        return None
    related = event.get("related")
    resources = [event.get("resource"), *(related if isinstance(related, list) else ())]
    found = [one for one in resources if isinstance(one, dict)]
    return PrefectEvent(
        id=its if isinstance(its := event.get("id"), str) else None,
        name=name,
        run_id=_id_in(found, _RUN),
        deployment_id=_id_in(found, _DEPLOYMENT),
        pool=_pool_in(found),
    )


def _id_in(resources: list[dict[str, Json]], prefix: str) -> str | None:
    for one in resources:
        its = one.get("prefect.resource.id")
        if isinstance(its, str) and its.startswith(prefix) and is_uuid(its.removeprefix(prefix)):
            return its.removeprefix(prefix)
    return None


def _pool_in(resources: list[dict[str, Json]]) -> str | None:
    for one in resources:
        its, name = one.get("prefect.resource.id"), one.get("prefect.resource.name")
        if isinstance(its, str) and its.startswith("prefect.work-pool.") and isinstance(name, str):
            return name
    return None
