"""The command line of runnerctl: find the verb, have it done, turn what went wrong into one line and a status.

Invariants: only the module of the verb that was asked for is loaded, and nothing of the daemon's; a reader that left
(`| head`) and Ctrl-C end it without a word.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from runnerd import __version__
from runnerd.cli import call
from runnerd.cli.console import Console
from runnerd.cli.text import clean
from runnerd.control.client import PREFECT_TIMEOUT_S, TIMEOUT_S, ControlClient
from runnerd.core.errors import RunnerdError
from runnerd.system.paths import SYSTEM_RUNTIME, control_socket, resolve_paths

# verb: (module, what it does)
VERBS = {
    "status": ("status", "the host at a glance, or one run or deployment in full"),
    "runs": ("runs", "the runs here now, or with history"),
    "cancel": ("cancel", "cancel runs"),
    "run": ("run", "create a flow run of a deployment now"),
    "logs": ("logs", "the output of a run"),
    "execute": ("execute", "run one given flow run here and now"),
    "deployments": ("deployments", "what is registered"),
    "pause": ("pause", "stop a deployment's schedules"),
    "resume": ("pause", "resume a deployment's schedules"),
    "pool": ("pool", "look at work pools, and change them"),
    "queue": ("queue", "look at work queues, and change them"),
    "drain": ("drain", "stop claiming on this host"),
    "undrain": ("drain", "claim again"),
    "reload": ("reload", "read the configuration again"),
    "config": ("config", "check or show the configuration, or print its schema"),
    "health": ("health", "whether all is well"),
    "doctor": ("doctor", "what is wrong with this host, and what to do about it"),
    "top": ("top", "a live view"),
    "version": ("version", "the versions of runnerctl and of the running runnerd"),
}
ASK_PREFECT = {"run", "execute", "pause", "resume", "pool", "queue"}


class Parser(argparse.ArgumentParser):
    """argparse, with its errors on one line, and no abbreviations: a script's --a must not change its meaning."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(call.USAGE, f"runnerctl: {clean(message)}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    # The default action: whoever read our output left, and there is nobody to tell.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except call.Usage as error:
        return _say(error, call.USAGE)
    except RunnerdError as error:
        return _say(error, _exit_status(error))
    except KeyboardInterrupt:
        return call.INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    parser = _parser(argv)
    args = parser.parse_args(argv)
    module = importlib.import_module(f"runnerd.cli.verbs.{VERBS[args.verb][0]}")
    path = getattr(args, "socket", None) or find_socket(os.environ, root=os.geteuid() == 0)
    console = Console.of_process(os.environ, json=getattr(args, "json", False))
    timeout_s = PREFECT_TIMEOUT_S if args.verb in ASK_PREFECT else TIMEOUT_S
    status: int = module.run(call.Call(args, ControlClient(path, timeout_s=timeout_s), console))
    sys.stdout.flush()
    return status


def find_socket(environ: Mapping[str, str], *, root: bool) -> str:
    """The socket to ask at. A user's own runnerd comes first, then the host's: group runnerd may ask that one.

    systemd's RUNTIME_DIRECTORY counts for the daemon only: here it is that of whatever service calls runnerctl.
    """
    if named := environ.get("RUNNERD_SOCKET"):
        return named
    users = {name: environ[name] for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME") if name in environ}
    own = resolve_paths(environ=users, root=root).control_socket
    host = control_socket(SYSTEM_RUNTIME)
    return host if os.path.exists(host) and not os.path.exists(own) else own


def _parser(argv: Sequence[str]) -> Parser:
    """The parser for the verb in `argv`, or for all of them when help or a correction is what is needed.

    Each parser costs a millisecond of looking for translations, so those of the other verbs are not made.
    """
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    common.add_argument("--socket", metavar="PATH", help="the control socket (or RUNNERD_SOCKET)")
    parser = Parser(prog="runnerctl", parents=[common], description="Ask a running runnerd.")
    parser.add_argument("--version", action="version", version=f"runnerctl {__version__}")
    # prog: else argparse formats a usage line to learn it, which loads shutil and every compression there is.
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, prog=parser.prog)
    chosen, rest = _chosen(argv, VERBS)
    for verb in (chosen,) if chosen else VERBS:
        name, words = VERBS[verb]
        its = verbs.add_parser(verb, help=words, description=words, parents=[common])
        if chosen:
            module = importlib.import_module(f"runnerd.cli.verbs.{name}")
            module.arguments(its)
            if commands := getattr(module, "COMMANDS", None):
                _add_commands(its, commands, rest, common)
    return parser


def _add_commands(parser: Parser, commands: Mapping[str, Any], words: Sequence[str], common: Parser) -> None:
    """The commands of a verb that has some; likewise the asked one, or all of them."""
    chosen, rest = _chosen(words, commands)
    adding = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=parser.prog)
    for command in (chosen,) if chosen else commands:
        about, arguments = commands[command]
        arguments(adding.add_parser(command, help=about, description=about, parents=[common]))
    if not chosen and not rest:
        parser.print_help(sys.stderr)
        parser.exit(call.USAGE)


def _chosen(argv: Sequence[str], known: Mapping[str, Any]) -> tuple[str | None, Sequence[str]]:
    """The word of `known` that nothing but what every verb takes comes before, and what follows it; else what comes
    in its place."""
    words = iter(argv)
    for word in words:
        if word == "--socket":
            next(words, None)
        elif word != "--json" and not word.startswith("--socket="):
            return (word, list(words)) if word in known else (None, [word, *words])
    return None, ()


def _exit_status(error: RunnerdError) -> int:
    by_status = {0: call.NOT_RUNNING, 403: call.NOT_PERMITTED, 404: call.NOT_FOUND}
    return by_status.get(getattr(error, "status", -1), call.FAILED)


def _say(error: Exception, status: int) -> int:
    print(f"runnerctl: {clean(' '.join(str(error).splitlines()))}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
