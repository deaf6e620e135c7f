"""runnerctl health: check that runnerd works, with the result as exit status."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.console import Cell, Column
from runnerd.cli.text import clean


def add_arguments(parser: ArgumentParser) -> None:
    del parser  # no arguments


def run(call: Call) -> int:
    health = call.client.get("/v1/health")
    if call.console.json:
        call.console.document(health)
    else:
        rows = [
            (
                clean(its["name"]),
                Cell("ok", "green") if its["ok"] else Cell("NOT OK", "red"),
                clean(its["detail"] or ""),
            )
            for its in health["checks"]
        ]
        call.console.table((Column("CHECK"), Column("HEALTH"), Column("DETAIL", flexible=True)), rows)
    return DONE if health["ok"] else FAILED
