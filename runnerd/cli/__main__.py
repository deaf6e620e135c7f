"""The command line of runnerctl: parses it, runs the verb, and turns a failure into one line and an exit status.

Invariants: only the module of the given verb is loaded, and no module of the daemon; a closed pipe (`| head`) and
Ctrl-C end runnerctl without a message.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from runnerd import __version__
from runnerd.cli import call
from runnerd.cli.command import Command
from runnerd.cli.console import Console
from runnerd.cli.text import clean
from runnerd.control.client import PREFECT_TIMEOUT_S, TIMEOUT_S, ControlClient
from runnerd.core.errors import RunnerdError
from runnerd.system.paths import SYSTEM_RUNTIME, control_socket, resolve_paths


class Verb(NamedTuple):
    """What runnerctl knows of a verb before it loads `module`, which has arguments() and run(), or COMMANDS."""

    module: str
    help: str
    asks_prefect: bool = False  # the daemon may have to wait for Prefect before it answers


VERBS = {
    "status": Verb("status", "show the host at a glance, or one run or deployment in full"),
    "runs": Verb("runs", "list the runs here now, or with history"),
    "cancel": Verb("cancel", "cancel runs"),
    "run": Verb("run", "create a flow run of a deployment now", asks_prefect=True),
    "logs": Verb("logs", "print the output of a run"),
    "execute": Verb("execute", "run one given flow run here and now", asks_prefect=True),
    "deployments": Verb("deployments", "list the deployments of this host"),
    "pause": Verb("pause", "pause a deployment's schedules", asks_prefect=True),
    "resume": Verb("pause", "resume a deployment's schedules", asks_prefect=True),
    "pool": Verb("pool", "show and change work pools", asks_prefect=True),
    "queue": Verb("queue", "show and change work queues", asks_prefect=True),
    "drain": Verb("drain", "stop claiming runs on this host"),
    "undrain": Verb("drain", "claim runs on this host again"),
    "reload": Verb("reload", "read the configuration again"),
    "config": Verb("config", "check or show the configuration, or print its schema"),
    "health": Verb("health", "check whether all is well"),
    "doctor": Verb("doctor", "find what is wrong with this host, and how to fix it"),
    "top": Verb("top", "show a live view of the host"),
    "version": Verb("version", "print the versions of runnerctl and of the running runnerd"),
}


class Parser(argparse.ArgumentParser):
    """Prints errors on one line, and takes no abbreviations: a script's --a must not change its meaning later."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(call.USAGE, f"runnerctl: {clean(message)}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    # The default action, which ends runnerctl: the reader of its output has closed the pipe.
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
    path = getattr(args, "socket", None) or find_socket(os.environ, root=os.geteuid() == 0)
    console = Console.of_process(os.environ, json=getattr(args, "json", False))
    timeout_s = PREFECT_TIMEOUT_S if VERBS[args.verb].asks_prefect else TIMEOUT_S
    status: int = args.run(call.Call(args, ControlClient(path, timeout_s=timeout_s), console))
    sys.stdout.flush()
    return status


def find_socket(environ: Mapping[str, str], *, root: bool) -> str:
    """Find the control socket: that of the user's own runnerd, else the host's, which group runnerd may use.

    RUNTIME_DIRECTORY is not read: to runnerctl systemd gives that of the service which calls runnerctl.
    """
    if named := environ.get("RUNNERD_SOCKET"):
        return named
    users = {name: environ[name] for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME") if name in environ}
    own = resolve_paths(environ=users, root=root).control_socket
    host = control_socket(SYSTEM_RUNTIME)
    return host if os.path.exists(host) and not os.path.exists(own) else own


def _parser(argv: Sequence[str]) -> Parser:
    """Build the parser for the verb in `argv`, or for all verbs where none is given, which ends in help or an error.

    Each parser costs a millisecond of looking for translations, so those of the other verbs are not built.
    """
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    common.add_argument(
        "--socket", metavar="PATH", help="use this control socket (RUNNERD_SOCKET, else the usual places)"
    )
    parser = Parser(prog="runnerctl", parents=[common], description="Ask a running runnerd.")
    parser.add_argument("--version", action="version", version=f"runnerctl {__version__}")
    # prog: else argparse formats a usage line to learn it, which loads shutil and every compression there is.
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, prog=parser.prog)
    chosen, rest = _chosen(argv, VERBS)
    for verb in (chosen,) if chosen else VERBS:
        about = VERBS[verb].help
        its = verbs.add_parser(verb, help=about, description=about, parents=[common])
        if chosen:
            module = importlib.import_module(f"runnerd.cli.verbs.{VERBS[verb].module}")
            if commands := getattr(module, "COMMANDS", None):
                _add_commands(its, commands, rest, common)
            else:
                module.arguments(its)
                its.set_defaults(run=module.run)
    return parser


def _add_commands(parser: Parser, commands: Mapping[str, Command], words: Sequence[str], common: Parser) -> None:
    """Add the given command of a verb, or all of its commands where none is given."""
    chosen, rest = _chosen(words, commands)
    adding = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=parser.prog)
    for command in (chosen,) if chosen else commands:
        about = commands[command].help
        its = adding.add_parser(command, help=about, description=about, parents=[common])
        commands[command].add_arguments(its)
        its.set_defaults(run=commands[command].run)
    if not chosen and not rest:
        parser.print_help(sys.stderr)
        parser.exit(call.USAGE)


def _chosen(argv: Sequence[str], known: Mapping[str, Any]) -> tuple[str | None, Sequence[str]]:
    """Split off the word of `known` that only common options precede; with another word there, None and the rest."""
    words = iter(argv)
    for word in words:
        if word == "--socket":
            next(words, None)
        elif word not in ("--json", "--") and not word.startswith("--socket="):
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
