"""The events by which the parts of the daemon wake each other, built before all of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Wakes:
    """One event a reason. Who waits for an event clears it; `draining` alone is a state and is never waited for."""

    poll: asyncio.Event = field(default_factory=asyncio.Event)  # ask the API for due runs now
    offer: asyncio.Event = field(default_factory=asyncio.Event)  # look again at what is on offer: a slot is free
    refresh: asyncio.Event = field(default_factory=asyncio.Event)  # read again what the API knows of deployments
    pools: asyncio.Event = field(default_factory=asyncio.Event)  # look at every work pool that this host serves
    status: asyncio.Event = field(default_factory=asyncio.Event)  # the status line may be another one
    draining: asyncio.Event = field(default_factory=asyncio.Event)  # set while this host claims nothing new

    def poll_now(self) -> None:
        """Have the API asked for due runs now instead of at the next interval."""
        self.poll.set()
        self.offer.set()
