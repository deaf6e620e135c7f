"""Subscribes to Prefect's events over a WebSocket (servers of Prefect 3, `/events/out`) and reads what concerns a host.

An event says only that it is worth asking: what a run's state is, and whose the run is, the API answers. So an event
that is lost, forged or late costs time or a request, and nothing else (ADR 31).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import httpx

from runnerd.core.place import Json
from runnerd.prefect_api.connections import is_proxied
from runnerd.prefect_api.credentials import Credentials
from runnerd.prefect_api.failure_words import broken_words
from runnerd.prefect_api.values import is_uuid
from runnerd.prefect_api.websocket import Closed, Refusal, WebSocket, open_websocket

DENIED = 1008  # the close code of a server that does not accept the credentials
_GREETING_S = 20.0
_RUN = "prefect.flow-run."
_DEPLOYMENT = "prefect.deployment."
# Runs that may start now, runs to cancel, and what may let runs start or keep them from it.
STARTS = frozenset({"Scheduled", "AwaitingRetry", "Resuming"})
CANCELS = frozenset({"Cancelling"})
CONNECTED = "runnerd.host.connected"
_PREFIXES = (
    *(_RUN + state for state in sorted(STARTS | CANCELS)),
    _DEPLOYMENT,
    "prefect.work-pool.",
    "prefect.work-queue.",
    CONNECTED,
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


async def subscribe(
    url: str,
    *,
    credentials: Callable[[], Credentials],
    headers: Mapping[str, str],
    clock: Callable[[], float],
    now: Callable[[], datetime],
) -> EventSocket | Refusal:
    """Subscribe to the events of the API at `url` from now on. Raises ApiDenied when `credentials` cannot be read."""
    base = httpx.URL(url.rstrip("/"))
    if is_proxied(base):
        return Refusal(
            status=405, why="the API is reached through a proxy (HTTP_PROXY), which runnerd does not stream through"
        )
    found = credentials()
    at = base.copy_with(scheme="wss" if base.scheme == "https" else "ws", raw_path=base.raw_path + b"/events/out")
    socket = await open_websocket(at, subprotocol="prefect", headers={**headers, **found.header()}, clock=clock)
    return socket if isinstance(socket, Refusal) else await greet(socket, credentials=found, since=now())


async def greet(socket: WebSocket, *, credentials: Credentials, since: datetime) -> EventSocket | Refusal:
    """Subscribe over an open connection, which is closed when the server refuses."""
    token = credentials.auth_string or credentials.key
    try:
        async with asyncio.timeout(_GREETING_S):
            await socket.send(json.dumps({"type": "auth", "token": token}))
            answer = await socket.receive()
            if not isinstance(answer, Closed) and _kind(answer) == "auth_success":
                await socket.send(json.dumps({"type": "filter", "backfill": False, "filter": _filter(since)}))
                return EventSocket(socket)
    except OSError as error:  # TimeoutError too
        answer = Closed(why=broken_words(error))
    await socket.close()
    if isinstance(answer, Closed):
        return Refusal(status=401 if answer.code == DENIED else None, why=answer.why)
    return Refusal(why="the answer is not that of Prefect")


def _filter(since: datetime) -> Json:
    # Without `until` a server sends events until the moment of the subscription only.
    occurred = {"since": since.isoformat(), "until": "9998-12-31T00:00:00Z"}
    return {"event": {"prefix": list(_PREFIXES)}, "occurred": occurred}


def parse_event(text: str) -> PrefectEvent | None:
    """Read one message of the stream; None when it is no event of a run, a deployment, a work pool or a queue."""
    message = _read_json(text)
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


def _kind(text: str) -> Json:
    message = _read_json(text)
    return message.get("type") if isinstance(message, dict) else None


def _read_json(text: str) -> Json:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


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
