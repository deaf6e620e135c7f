"""Defines the arguments that several commands of runnerctl pool and runnerctl queue have, and parses their values."""

from __future__ import annotations

from argparse import ArgumentTypeError

from runnerd.cli.command import argument, make_number_parser
from runnerd.control.client import Json
from runnerd.core.errors import RunnerdError
from runnerd.core.numbers import HOURS_MAX, LIMIT_MAX
from runnerd.core.strict_json import read_json


def parse_name(text: str) -> str:
    """Parse a name for argparse; an empty name would stand for every pool or queue."""
    if not text.strip():
        raise ArgumentTypeError("the name must not be empty")
    return text


parse_limit = make_number_parser(least=0, most=LIMIT_MAX)
parse_priority = make_number_parser(least=1, most=LIMIT_MAX)

LIMIT = argument("limit", metavar="N", type=parse_limit, help="the number of runs that may run at the same time")
HOURS = argument(
    "--hours",
    metavar="N",
    type=make_number_parser(least=1, most=HOURS_MAX),
    default=1,
    help="list the runs due within this many hours (1)",
)
YES = argument("--yes", action="store_true", help="delete without asking first")
CONCURRENCY_LIMIT = argument(
    "--concurrency-limit", metavar="N", type=parse_limit, help="set the number of runs that may run at the same time"
)
DESCRIPTION = argument("--description", metavar="D", help="set the description")
TEMPLATE = argument("--base-job-template", metavar="F", help="set the base job template from this JSON file")


def read_template(path: str | None) -> Json | None:
    """Read a base job template from a file; None without a path. Raises RunnerdError."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            found = read_json(file.read())
    except OSError as error:
        raise RunnerdError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise RunnerdError(f"cannot read {path} as JSON: {error}") from None
    if not isinstance(found, dict):
        raise RunnerdError(
            f"cannot use {path} as base job template: it is not a JSON object;"
            " see one with: runnerctl pool get-default-base-job-template --type process"
        )
    return found
