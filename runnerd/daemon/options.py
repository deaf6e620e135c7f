"""The daemon's options besides its directories: from the command line, --daemonize and systemd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runnerd.log.journald import Journald


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one daemon."""

    once: bool = False  # poll once, wait for the runs, exit
    ready: Callable[[], None] = lambda: None  # called when the daemon is ready
    hangup: Callable[[], None] = lambda: None  # called at each SIGHUP, before the reload, which may have to wait
    journald: Journald | None = None  # where the daemon's log and the runs' output are sent; None without journald
