"""One call of runnerctl, as its verb receives it, and the exit statuses."""

from __future__ import annotations

from argparse import Namespace
from typing import NamedTuple

from runnerd.cli.console import Console
from runnerd.control.client import ControlClient

DONE = 0
FAILED = 1
USAGE = 2
NOT_RUNNING = 3
NOT_FOUND = 4
NOT_PERMITTED = 5
INTERRUPTED = 130


class UsageError(Exception):
    """A command line that cannot be carried out; the message says how to correct it."""


class Call(NamedTuple):
    """The parsed arguments, a client of the control socket, and the console to print to."""

    args: Namespace
    client: ControlClient
    console: Console
