"""Keeps a subscription to Prefect's events, and wakes the loop that an event concerns.

Invariants: an event is only a reason to ask the API sooner, so none has to be believed; wakes are as many as events,
polls never more than the poller's burst allows; a server, proxy or version without a stream costs no more than a try
now and then; polls are further apart only while an event of our own has come back over this very subscription, and
does so again every PROVE_EVERY_S (ADR 31).
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import StrEnum

from runnerd.core.errors import ApiError
from runnerd.core.pace import Pace
from runnerd.core.place import Json
from runnerd.core.wakes import Wakes
from runnerd.deployments.registry import Registry
from runnerd.pools.changes import PoolChanges
from runnerd.prefect_api.client import PrefectApi
from runnerd.prefect_api.event_socket import CANCELS, CONNECTED, LISTENING, OWN, EventSocket, PrefectEvent
from runnerd.prefect_api.prefect_socket import RETRY_CAP_S, RETRY_REFUSED_S
from runnerd.prefect_api.websocket import Closed, Refusal
from runnerd.runs.supervisor import Supervisor
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

STEADY_S = 60.0  # a subscription that ended sooner is not repeated at once
PROVE_EVERY_S = 600.0  # a server may answer pings and have stopped to distribute events
PROOF_S = 30.0  # until our own event must have come back
_PROVE_FIRST_S = 60.0  # until one that has not is repeated, then twice as long each time
_NO_RUN_CHANGES = frozenset({"ready", "not-ready"})  # of a deployment: whether it is polled


class StreamCondition(StrEnum):
    LIVE = "live"
    CONNECTING = "connecting"
    SILENT = "silent"  # connected, but our own event did not come back
    OFF = "off"


class EventStream:
    """Subscribes and listens: `run` for ever. `pools`: what events change of the work pools that this host serves."""

    def __init__(
        self,
        *,
        subscribe: Callable[[], Awaitable[EventSocket | Refusal]],
        api: PrefectApi,
        supervisor: Supervisor,
        registry: Registry,
        pools: PoolChanges,
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
        self._proved = asyncio.Event()  # set once it has come back
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
            await asyncio.sleep(backoff.next_s(cap_s=RETRY_CAP_S) if delay_s is None else delay_s)

    async def _once(self) -> float | None:
        """Listen until the subscription ends; return the seconds to wait before the next, None for the back-off."""
        server = await self._api.server()
        if server.major < 3:
            self._note(StreamCondition.OFF, f"Prefect {server.version} streams no events")
            return RETRY_REFUSED_S
        found = await self._subscribe()
        if isinstance(found, Refusal):
            self._note(
                StreamCondition.OFF if found.lasts else StreamCondition.CONNECTING, f"no event stream: {found.why}"
            )
            return RETRY_REFUSED_S if found.lasts else None
        try:
            over = await self._listen(found)
        finally:
            await found.close()
        self._lose()
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
        proving = asyncio.create_task(self._prove(), name="proof of the event stream")
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
            proving.cancel()

    async def _prove(self) -> None:
        """Emit events of our own: that they return proves that the server distributes events to this subscription."""
        name, wait_s = CONNECTED, _PROVE_FIRST_S
        while True:
            self._proved.clear()
            with self._contained.item("the event of this host"):
                await self._send_probe(name)
            name = LISTENING
            if not await self._is_proved(within_s=PROOF_S):
                if self._pace.woken:
                    self._note(StreamCondition.SILENT, "connected; events have ceased to come")
                self._lose()
                if not await self._is_proved(within_s=wait_s):  # it may come late
                    wait_s = min(2 * wait_s, PROVE_EVERY_S)
                    continue
            wait_s = _PROVE_FIRST_S
            await asyncio.sleep(PROVE_EVERY_S)

    async def _is_proved(self, *, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._proved.wait()
        return self._proved.is_set()

    async def _send_probe(self, name: str) -> None:
        self._probe = str(uuid.uuid4())
        host = self._host_name()
        event: Json = {
            "id": self._probe,
            "occurred": self._now().isoformat(),
            "event": name,
            "resource": {"prefect.resource.id": f"{OWN}{host}", "prefect.resource.name": host},
        }
        try:
            await self._api.pools.emit_event(event)
        except ApiError as error:
            if not self._pace.woken:
                self._note(StreamCondition.SILENT, f"connected; whether events come is not known: {error}")

    def _take(self, event: PrefectEvent) -> None:
        """Wake the loop that this event concerns, if it concerns this host."""
        if event.name.startswith(OWN):
            if event.id == self._probe:
                self._note_proof()
            return
        self.events += 1
        if event.run_state is not None:
            self._take_of_run(event)
        elif event.deployment_id is not None:
            known = self._registry.by_id(event.deployment_id) is not None
            if known and event.name.rpartition(".")[2] not in _NO_RUN_CHANGES:
                self._wakes.refresh.set()
        else:
            self._pools.note(event.pool, event.name)

    def _note_proof(self) -> None:
        self._proved.set()
        if not self._pace.woken:
            self._pace.woken = True
            self._note(StreamCondition.LIVE, "events arrive")
            # Nothing tells of what happened before.
            self._wakes.poll_now()
            self._wakes.cancel.set()
            self._wakes.refresh.set()

    def _take_of_run(self, event: PrefectEvent) -> None:
        if event.run_state in CANCELS:
            run = self._supervisor.run(event.run_id) if event.run_id is not None else None
            if run is not None and run.record.intent is None:  # else it is being ended, and its end is no news
                self._wakes.cancel.set()
        elif self._registry.own(event.deployment_id) is not None or self._pools.serves(event.pool):
            self._wakes.poll_now()

    def _note(self, condition: StreamCondition, detail: str) -> None:
        if condition is not self.condition:
            self.since = self._now()
            self._log.info("events", state=condition.value, detail=detail)
        self.condition, self.detail = condition, detail
