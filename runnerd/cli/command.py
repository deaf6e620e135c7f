"""What a verb of runnerctl with commands of its own says about each: a table {name: Command(help, arguments, run)}.

NamedTuples, not dataclasses: runnerctl loads this at every such call and must answer at once.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from runnerd.cli.call import Call


class Argument(NamedTuple):
    """One argument as argparse takes it; made by `argument`, and shared by the commands that take it."""

    flags: tuple[str, ...]
    settings: Mapping[str, Any]

    def with_default(self, words: str) -> Argument:
        """Add `words` to the help as the default, in parentheses."""
        return Argument(self.flags, {**self.settings, "help": f"{self.settings['help']} ({words})"})


def argument(*flags: str, **settings: Any) -> Argument:
    """Describe an argument in the words of ArgumentParser.add_argument."""
    return Argument(flags, settings)


class Command(NamedTuple):
    help: str
    arguments: tuple[Argument, ...]
    run: Callable[[Call], int]

    def add_arguments(self, parser: ArgumentParser) -> None:
        for one in self.arguments:
            parser.add_argument(*one.flags, **one.settings)
