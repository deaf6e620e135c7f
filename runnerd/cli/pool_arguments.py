"""Defines the arguments that several commands of runnerctl pool and runnerctl queue have, and parses their values."""

from __future__ import annotations

from argparse import ArgumentTypeError

from runnerd.cli.command import argument
from runnerd.control.client import Json
from runnerd.core.errors import RunnerdError
from runnerd.core.strict_json import read_json


def parse_name(text: str) -> str:
    """Parse a name for argparse; an empty name would stand for every pool or queue."""
    if not text.strip():
        raise ArgumentTypeError("the name must not be empty")
    return text


def parse_limit(text: str) -> int:
    """Parse a concurrency limit for argparse."""
    return _parse_number(text, least=0)


def parse_positive(text: str) -> int:
    """Parse a priority or a number of hours for argparse."""
    return _parse_number(text, least=1)


def _parse_number(text: str, *, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
        raise ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
    return int(text)


LIMIT = argument("limit", metavar="N", type=parse_limit, help="the number of runs that may run at the same time")
HOURS = argument(
    "--hours", metavar="N", type=parse_positive, default=1, help="list the runs due within this many hours (1)"
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
