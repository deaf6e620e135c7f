"""Keeps a subscription to Prefect's events, and wakes the loop that an event concerns.

Invariants: an event is only a reason to ask the API sooner, so none has to be believed; wakes are as many as events,
polls never more than the poller's burst allows; a server, proxy or version without a stream costs no more than a try
now and then; polls are further apart only while an event of our own has come back over this very subscription (ADR 31).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum

from runnerd.core.errors import ApiError
from runnerd.core.pace import Pace
from runnerd.core.place import Json
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.event_socket import CANCELS, CONNECTED, EventSocket, PrefectEvent
from runnerd.prefect_api.websocket import Closed, Refusal
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

RETRY_REFUSED_S = 600.0  # a proxy or server that has no stream gets none within minutes
STEADY_S = 60.0  # a subscription that ended sooner is not repeated at once
_NO_STREAM = frozenset({401, 403, 404, 405, 426})


class StreamCondition(StrEnum):
    LIVE = "live"
    CONNECTING = "connecting"
    SILENT = "silent"  # connected, but our own event did not come back
    OFF = "off"


class EventStream:
    """Subscribes and listens: `run` for ever. `pools`: the names of the work pools that this host serves."""

    def __init__(
        self,
        *,
        subscribe: Callable[[], Awaitable[EventSocket | Refusal]],
        api: PrefectApi,
        supervisor: Supervisor,
        registry: Registry,
        pools: Callable[[], set[str]],
        host_name: Callable[[], str],
        pace: Pace,
        wakes: Wakes,
        ambient: Ambient,
    ) -> None:
        self._subscribe = subscribe
        self._api = api
        self._supervisor = supervisor
        self._registry = registry
        self._pools = pools
        self._host_name = host_name
        self._pace = pace
        self._wakes = wakes
        self._now, self._clock, self._log = ambient.now, ambient.clock, ambient.log
        self._backoff = ambient.backoff
        self._contained = Containment(log=ambient.log, loop="events")
        self._probe: str | None = None  # the id of our own event that is on its way
        self.condition = StreamCondition.OFF
        self.detail = "not tried yet"
        self.since: datetime = ambient.now()
        self.events = 0  # received that concern runs, deployments or pools

    async def run(self) -> None:
        """Subscribe again whenever a subscription ends."""
        backoff = self._backoff()
        while True:
            began, delay_s = self._clock(), None
            with self._contained.item("a subscription"):
                try:
                    delay_s = await self._once()
                except ApiError as error:
                    self._note(StreamCondition.CONNECTING, str(error))
            self._lose()
            if self._clock() - began > STEADY_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s() if delay_s is None else delay_s)

    async def _once(self) -> float | None:
        """Listen until the subscription ends; return the seconds to wait before the next, None for the back-off."""
        server = await self._api.server()
        if server.major < 3:
            self._note(StreamCondition.OFF, f"Prefect {server.version} streams no events")
            return RETRY_REFUSED_S
        found = await self._subscribe()
        if isinstance(found, Refusal):
            refused = found.status in _NO_STREAM
            self._note(StreamCondition.OFF if refused else StreamCondition.CONNECTING, f"no event stream: {found.why}")
            return RETRY_REFUSED_S if refused else None
        try:
            over = await self._listen(found)
        finally:
            await found.close()
        self._note(StreamCondition.CONNECTING, f"the event stream ended: {over.why}")
        return None

    def _lose(self) -> None:
        """Have polls as far apart as configured again, the first of them now."""
        if self._pace.woken:
            self._pace.woken = False
            self._wakes.poll_now()

    async def _listen(self, socket: EventSocket) -> Closed:
        """Wake loops until the subscription ends."""
        self._note(StreamCondition.SILENT, "connected; no event has come yet")
        self._wakes.poll_now()  # nothing tells of what happened before the subscription
        self._wakes.cancel.set()
        probing = asyncio.create_task(self._send_probe(), name="probe of the event stream")
        try:
            while True:
                event = await socket.receive()
                if isinstance(event, Closed):
                    return event
                if event is not None:
                    self._take(event)
                # Messages that are there already are read without a pause: other loops get their turn in between.
                await asyncio.sleep(0)
        finally:
            probing.cancel()

    async def _send_probe(self) -> None:
        """Emit an event of our own: its return proves that the server distributes events to this subscription."""
        self._probe = str(uuid.uuid4())
        name = self._host_name()
        event: Json = {
            "id": self._probe,
            "occurred": self._now().isoformat(),
            "event": CONNECTED,
            "resource": {"prefect.resource.id": f"runnerd.host.{name}", "prefect.resource.name": name},
        }
        with self._contained.item("the event of this host"):
            try:
                await self._api.pools.emit_event(event)
            except ApiError as error:
                self._note(StreamCondition.SILENT, f"connected; whether events come is not known: {error}")

    def _take(self, event: PrefectEvent) -> None:
        """Wake the loop that this event concerns, if it concerns this host."""
        if event.id == self._probe and event.name == CONNECTED:
            self._pace.woken = True
            self._note(StreamCondition.LIVE, "events arrive")
            return
        self.events += 1
        if event.run_state is not None:
            self._take_of_run(event)
        elif event.deployment_id is not None:
            if self._registry.by_id(event.deployment_id) is not None:
                self._wakes.refresh.set()
        elif event.pool in self._pools():
            self._wakes.pools.set()
            self._wakes.poll_now()

    def _take_of_run(self, event: PrefectEvent) -> None:
        if event.run_state in CANCELS:
            if event.run_id is not None and self._supervisor.run(event.run_id) is not None:
                self._wakes.cancel.set()
        elif self._registry.own(event.deployment_id) is not None or event.pool in self._pools():
            self._wakes.poll_now()

    def _note(self, condition: StreamCondition, detail: str) -> None:
        if condition is not self.condition:
            self.since = self._now()
            self._log.info("events", state=condition.value, detail=detail)
        self.condition, self.detail = condition, detail
