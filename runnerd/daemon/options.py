"""What the command line and its surroundings say beyond the directories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runnerd.log.journald import Journald


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one daemon."""

    once: bool = False
    ready: Callable[[], None] = lambda: None  # called when the daemon is ready
    hangup: Callable[[], None] = lambda: None  # called at each SIGHUP at once; the reload may have to wait
    journald: Journald | None = None  # where our log goes, and with it what the flows print
