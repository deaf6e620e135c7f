"""Describes the commands of a verb that has some (pool, queue), in a table {name: Command(help, arguments, run)}.

NamedTuples, not dataclasses, because loading dataclasses would double the time of a call.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from runnerd.cli.call import Call
from runnerd.core.numbers import parse_whole


class Argument(NamedTuple):
    """One argument, in the terms of argparse; commands can share it."""

    flags: tuple[str, ...]
    settings: Mapping[str, Any]

    def with_default(self, words: str) -> Argument:
        """Add `words` to the help as the default, in parentheses."""
        return Argument(self.flags, {**self.settings, "help": f"{self.settings['help']} (default: {words})"})


def argument(*flags: str, **settings: Any) -> Argument:
    """Describe an argument as ArgumentParser.add_argument does."""
    return Argument(flags, settings)


class Command(NamedTuple):
    help: str
    arguments: tuple[Argument, ...]
    run: Callable[[Call], int]

    def add_arguments(self, parser: ArgumentParser) -> None:
        for one in self.arguments:
            parser.add_argument(*one.flags, **one.settings)


def make_number_parser(*, least: int, most: int) -> Callable[[str], int]:
    """Make a parser of whole numbers for argparse."""

    def parse(text: str) -> int:
        try:
            return parse_whole(text, least=least, most=most)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None

    return parse
