"""Reads a command of a unit or a crontab: which of Prefect's programs it starts, or which script. Pure."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["worker", "agent", "serve", "script"]

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.S)
_PYTHON = re.compile(r"python(?:3(?:\.[0-9]+)?)?")
_SHELLS = ("sh", "bash", "dash", "zsh")
_WORDS_BEFORE = ("exec", "nohup", "setsid", "time", "command")
_VERBS: dict[tuple[str, str], Kind] = {
    ("worker", "start"): "worker",
    ("agent", "start"): "agent",
    ("flow", "serve"): "serve",
}
_PYTHON_OPTIONS_WITH_VALUE = ("-W", "-X")
_DEPTH_MAX = 5  # of shells within shells


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: `kind` is None where it starts nothing of Prefect's and no script.

    `arguments` are those after the verb, or after the script; `script` as written. `program` is what is started, of
    which the interpreter follows. `others` are the other commands of a shell line, as text.
    """

    kind: Kind | None = None
    arguments: tuple[str, ...] = ()
    script: str | None = None
    program: str = ""
    directory: str | None = None
    user: str | None = None
    activated: str | None = None  # a virtual environment, by its activate file
    environment: dict[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    profile: str | None = None


def read_command(argv: Sequence[str], *, depth: int = 0) -> Command:
    """Read the words of one command, through `env`, `nice`, `sudo -u`, `sh -c`, `uv run` and the like."""
    words, environment, user = list(argv), {}, None
    while words:
        name = os.path.basename(words[0])
        if (found := _ASSIGNMENT.fullmatch(words[0])) is not None:
            environment[found[1]] = found[2]
            del words[0]
        elif name in _WORDS_BEFORE or (name == "env" and len(words) > 1):
            del words[0]
        elif name == "nice":
            del words[: 3 if words[1:2] == ["-n"] else 2 if words[1:2] and words[1].startswith("-") else 1]
        elif name == "sudo" and words[1:2] == ["-u"]:
            user = words[2] if len(words) > 2 else None
            del words[:3]
        elif name in ("uv", "poetry", "pipenv", "pdm") and words[1:2] == ["run"]:
            del words[:2]
        elif name in _SHELLS and (text := _shell_text(words)) is not None and depth < _DEPTH_MAX:
            inner = read_shell(text, depth=depth + 1)
            return replace(inner, environment={**environment, **inner.environment}, user=inner.user or user)
        else:
            break
    return replace(_read_program(words), environment=environment, user=user)


def _shell_text(words: Sequence[str]) -> str | None:
    """Return the text of `sh -c TEXT`."""
    for index, word in enumerate(words[1:], 1):
        if not word.startswith("-"):
            return None
        if "c" in word:
            return words[index + 1] if len(words) > index + 1 else None
    return None


def _read_program(words: Sequence[str]) -> Command:
    if not words:
        return Command()
    program, rest = words[0], list(words[1:])
    if _PYTHON.fullmatch(os.path.basename(program)):
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
            del rest[: 2 if rest[0] in _PYTHON_OPTIONS_WITH_VALUE else 1]
        if rest[:2] == ["-m", "prefect"]:
            return _read_prefect(program, rest[2:])
        if not rest or rest[0] in ("-m", "-c"):
            return Command(program=program)
        return Command(kind="script", script=rest[0], arguments=tuple(rest[1:]), program=program)
    if os.path.basename(program) == "prefect":
        return _read_prefect(program, rest)
    if program.endswith(".py"):
        return Command(kind="script", script=program, arguments=tuple(rest))
    return Command(program=program)


def _read_prefect(program: str, words: Sequence[str]) -> Command:
    words, profile = list(words), None
    while words and words[0].startswith("-"):
        if words[0] in ("-p", "--profile"):
            profile = words[1] if len(words) > 1 else None
            del words[:2]
        else:
            del words[0]
    kind = _VERBS.get((words[0], words[1])) if len(words) > 1 else None
    return Command(kind=kind, arguments=tuple(words[2:]), program=program, profile=profile)


def read_shell(text: str, *, depth: int = 0) -> Command:
    """Read a line of a shell: the one command that starts something, in the directory and environment before it.

    Raises ValueError for quotes that are not closed.
    """
    directory: str | None = None
    activated: str | None = None
    environment: dict[str, str] = {}
    found: Command | None = None
    others: list[str] = []
    for words in _split_commands(text):
        name = words[0]
        if name == "cd" and len(words) == 2:
            directory = os.path.join(directory or "", words[1])
        elif name in (".", "source") and len(words) == 2 and words[1].endswith("/activate"):
            activated = os.path.dirname(os.path.dirname(words[1]))
        elif name == "export" or all(_ASSIGNMENT.fullmatch(word) for word in words):
            environment |= {its[1]: its[2] for word in words if (its := _ASSIGNMENT.fullmatch(word)) is not None}
        elif found is None and (one := read_command(words, depth=depth)).kind is not None:
            found = one
        else:
            others.append(shlex.join(words))
    if found is None:
        return Command(others=tuple(others), directory=directory, environment=environment)
    return replace(
        found,
        directory=os.path.join(directory, found.directory)
        if directory and found.directory
        else directory or found.directory,
        activated=found.activated or activated,
        environment={**environment, **found.environment},
        others=(*others, *found.others),
    )


def _split_commands(text: str) -> list[list[str]]:
    """Split a line into its commands, without redirections."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    commands: list[list[str]] = [[]]
    into_file = False
    for token in lexer:
        if into_file:
            into_file = False
        elif token and not set(token) - set("<>&") and set(token) & set("<>"):
            if commands[-1] and commands[-1][-1] in ("0", "1", "2"):
                commands[-1].pop()  # the descriptor of 2>
            into_file = True
        elif token and not set(token) - set("();&|"):
            commands.append([])
        else:
            commands[-1].append(token)
    return [words for words in commands if words]
