"""Holds the events by which the parts of the daemon wake each other; built before these parts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Wakes:
    """Holds one event per reason, cleared by the part that waits for it; `draining` is a state, with no waiter."""

    poll: asyncio.Event = field(default_factory=asyncio.Event)  # poll the API for due runs now
    cancel: asyncio.Event = field(default_factory=asyncio.Event)  # ask for runs to be cancelled now
    offer: asyncio.Event = field(default_factory=asyncio.Event)  # offer the runs on offer again: a slot is free
    refresh: asyncio.Event = field(default_factory=asyncio.Event)  # read the deployments from the API again
    pools: asyncio.Event = field(default_factory=asyncio.Event)  # check every work pool that this host serves
    status: asyncio.Event = field(default_factory=asyncio.Event)  # the status line may have changed
    draining: asyncio.Event = field(default_factory=asyncio.Event)  # set while this host drains
    shutdown: asyncio.Event = field(default_factory=asyncio.Event)  # stop the daemon: asked for over HTTP

    def poll_now(self) -> None:
        """Poll the API for due runs now instead of at the next interval."""
        self.poll.set()
        self.offer.set()
