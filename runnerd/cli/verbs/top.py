"""runnerctl top: show the status, updated every two seconds, until q or Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import termios
import time
import tty
from argparse import ArgumentParser
from collections.abc import Iterator

from runnerd.cli.call import DONE, Call, UsageError
from runnerd.cli.console import Console
from runnerd.cli.verbs.status import print_host
from runnerd.core.errors import ControlError

EVERY_S = 2.0
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def add_arguments(parser: ArgumentParser) -> None:
    del parser  # no arguments


def run(call: Call) -> int:
    if call.console.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("cannot show top: it needs a terminal; a program can use runnerctl status --json")
    call.client.get("/v1/status")  # "not running" and "not permitted" are printed on the normal screen
    with _screen(), contextlib.suppress(KeyboardInterrupt):
        while True:
            sys.stdout.write(_HOME + _frame(call) + _CLEAR_BELOW)
            sys.stdout.flush()
            if _quit_within(EVERY_S):
                break
    return DONE


def _frame(call: Call) -> str:
    size = os.get_terminal_size(sys.stdout.fileno())
    console = Console(json=False, width=size.columns, colour=call.console.colour)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        console.line(console.paint(f"runnerctl top, {time.strftime('%H:%M:%S')}; q quits", "dim"))
        try:
            print_host(console, call.client.get("/v1/status"))
        except ControlError as error:
            console.line(console.paint(str(error), "red"))
    lines = text.getvalue().splitlines()[: size.lines - 1]
    return "".join(f"{line}{_CLEAR_LINE}\r\n" for line in lines)


def _quit_within(seconds: float) -> bool:
    """Wait for a key, and return whether it was q."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), 64)[:1] in (b"q", b"Q", b"\x04", b"")


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """Switch to the terminal's alternate screen, without line input and echo, and restore both at the end."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write(_ENTER)
        yield
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
