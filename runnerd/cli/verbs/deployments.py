"""runnerctl deployments: list the deployments of this host, with the problem of each that is not ready."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call
from runnerd.cli.tables import print_deployments


def add_arguments(parser: ArgumentParser) -> None:
    del parser  # no arguments


def run(call: Call) -> int:
    deployments = call.client.get("/v1/deployments")
    if call.console.json:
        call.console.document(deployments)
    elif deployments:
        print_deployments(call.console, deployments)
    else:
        call.console.remark("no deployments; write a YAML file into conf.d, then: runnerctl reload")
    return DONE
