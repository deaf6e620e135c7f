"""runnerctl run: create a flow run of a deployment now, and follow it if asked to."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any, NoReturn

from runnerd.cli.call import DONE, Call, Usage
from runnerd.cli.text import clean
from runnerd.cli.watch import watch
from runnerd.control.client import quote

Json = Any


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("deployment", metavar="DEPLOYMENT")
    parser.add_argument(
        "-p", "--parameter", metavar="KEY=JSON", action="append", default=[], help="a parameter; may be repeated"
    )
    parser.add_argument("--name", metavar="N", help="the flow run's name")
    parser.add_argument("--tag", metavar="T", action="append", default=[], help="a tag; may be repeated")
    parser.add_argument("--watch", action="store_true", help="follow it, and exit 0 only if it completes")


def run(call: Call) -> int:
    args = call.args
    body = {"parameters": parameters(args.parameter), "name": args.name, "tags": args.tag}
    created = call.client.post(f"/v1/deployments/{quote(args.deployment)}/run", body)
    if args.watch:
        return watch(call, created)
    if call.console.json:
        call.console.document(created)
    else:
        call.console.line(f"created run {clean(created['name'])} ({created['id']})")
    return DONE


def parameters(pairs: Sequence[str]) -> Json:
    """KEY=JSON each; a bare word is a string. Raises Usage, naming the parameter."""
    found = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise Usage(f"-p {pair!r} is not KEY=JSON")
        if key in found:
            raise Usage(f"parameter {key!r} is given twice")
        found[key] = _value(key, text)
    return found


def _value(key: str, text: str) -> Json:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        if text.lstrip()[:1] in tuple('{["'):
            raise Usage(f"parameter {key!r} is not JSON: {error}") from None
        return text


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
