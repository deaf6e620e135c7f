"""runnerctl deployments: what is registered, and what keeps the rest from it."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.tables import deployments_table


def arguments(parser: ArgumentParser) -> None:
    del parser  # none of its own


def run(call: Call) -> int:
    deployments = call.client.get("/v1/deployments")
    if call.console.json:
        call.console.document(deployments)
    elif deployments:
        deployments_table(call.console, deployments)
    else:
        call.console.remark("no deployments; drop their YAML into conf.d and runnerctl reload")
    return DONE
