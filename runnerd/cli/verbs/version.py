"""runnerctl version: print the versions of runnerctl and of the running runnerd."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd import __version__
from runnerd.cli.call import DONE, Call
from runnerd.cli.text import clean


def add_arguments(parser: ArgumentParser) -> None:
    del parser  # no arguments


def run(call: Call) -> int:
    if not call.console.json:
        call.console.line(f"runnerctl {__version__}")  # before the request, so that it is printed without a daemon too
    daemon = call.client.get("/v1/status")["version"]
    if call.console.json:
        call.console.document({"runnerctl": __version__, "runnerd": daemon})
    else:
        call.console.line(f"runnerd   {clean(daemon)}")
    return DONE
