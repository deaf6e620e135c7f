"""What a verb is given to do its work with, and the exit statuses it may end with."""

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


class Usage(Exception):
    """The command line asks for something that makes no sense; the message says what would."""


class Call(NamedTuple):
    args: Namespace
    client: ControlClient
    console: Console
