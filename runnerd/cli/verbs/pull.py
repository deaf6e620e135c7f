"""runnerctl pull and revert: pull the code of a deployment now, hold it at an earlier commit, or release it."""

from __future__ import annotations

from argparse import ArgumentParser

from runnerd.cli.call import DONE, Call, UsageError
from runnerd.cli.text import clean
from runnerd.control.client import Json, quote

TIMEOUT_S = 90.0  # above the time for which runnerd waits for a pull
SHORT = 12  # characters of a commit, as git shows it in a large repository


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("deployment", metavar="DEPLOYMENT", help="the deployment's name, or flow/name")
    if parser.prog.endswith(" revert"):
        parser.add_argument(
            "commit",
            metavar="COMMIT",
            nargs="?",
            help="hold this commit: by its beginning if known here, else whole (default: the one before)",
        )
        parser.add_argument("--release", action="store_true", help="end the hold and pull what the source names now")


def run(call: Call) -> int:
    args = call.args
    place = f"/v1/deployments/{quote(args.deployment)}/{args.verb}"
    if args.verb == "pull":
        its = call.client.post(place, timeout_s=TIMEOUT_S)
    elif args.release and args.commit:
        raise UsageError("a commit and --release exclude each other")
    else:
        its = call.client.post(place, {"commit": args.commit, "release": args.release}, timeout_s=TIMEOUT_S)
    if call.console.json:
        call.console.print_document(its)
    else:
        call.console.print_line(f"{clean(its['name'])} is at {_describe(its['source'], its['name'])}")
    return DONE


def _describe(source: Json, name: str) -> str:
    commit = clean((source["commit"] or "-")[:SHORT])
    return f"{commit}, held until: runnerctl revert {clean(name)} --release" if source["held"] else commit
