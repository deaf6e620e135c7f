"""runnerctl version: ours, and that of the daemon that runs."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd import __version__
from runnerd.cli.call import DONE, Call
from runnerd.cli.text import clean


def arguments(parser: ArgumentParser) -> None:
    del parser  # none of its own


def run(call: Call) -> int:
    if not call.console.json:
        call.console.line(f"runnerctl {__version__}")  # before we ask: this much is true without a daemon
    daemon = call.client.get("/v1/status")["version"]
    if call.console.json:
        call.console.document({"runnerctl": __version__, "runnerd": daemon})
    else:
        call.console.line(f"runnerd   {clean(daemon)}")
    return DONE
