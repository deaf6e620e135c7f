"""The arguments that several commands of runnerctl pool and runnerctl queue take, and how their values are read."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError

from runnerd.cli.command import argument
from runnerd.control.client import Json
from runnerd.core.errors import RunnerdError


def name(text: str) -> str:
    """Read a name for argparse; an empty one would stand for every pool or queue."""
    if not text.strip():
        raise ArgumentTypeError("the name is empty")
    return text


def limit(text: str) -> int:
    """Read a concurrency limit for argparse."""
    return _number(text, least=0)


def positive(text: str) -> int:
    """Read a priority or a number of hours for argparse."""
    return _number(text, least=1)


def _number(text: str, *, least: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


NAME = argument("name", metavar="NAME", type=name)
LIMIT = argument("limit", metavar="N", type=limit, help="the number of runs that may run at the same time")
HOURS = argument("--hours", metavar="N", type=positive, default=1, help="look this many hours ahead (1)")
YES = argument("--yes", action="store_true", help="delete without asking first")
CONCURRENCY_LIMIT = argument(
    "--concurrency-limit", metavar="N", type=limit, help="let only this many runs run at the same time"
)
DESCRIPTION = argument("--description", metavar="D", help="set its description")
TEMPLATE = argument("--base-job-template", metavar="F", help="take its base job template from this JSON file")


def template_of(path: str | None) -> Json | None:
    """Read the base job template in a file; None without a path. Raises RunnerdError."""
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise RunnerdError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RunnerdError(f"cannot read {path}: it is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise RunnerdError(
            f"cannot use {path}: a base job template is a JSON object, as runnerctl pool inspect --json shows one"
        )
    return found
