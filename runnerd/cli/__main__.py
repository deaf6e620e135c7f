"""Parses the command line of runnerctl, runs the verb, and turns a failure into one line and an exit status.

Invariants: only the module of the given verb is loaded, and no module of the daemon; a closed pipe (`| head`) and
Ctrl-C end runnerctl without a message.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from runnerd import __version__
from runnerd.cli import call
from runnerd.cli.command import Command
from runnerd.cli.console import Console
from runnerd.cli.text import clean
from runnerd.control.client import PREFECT_TIMEOUT_S, TIMEOUT_S, ControlClient
from runnerd.core.errors import RunnerdError
from runnerd.core.names import cut, describe_unfit_name, describe_unfit_text
from runnerd.system.paths import SYSTEM_RUNTIME, control_socket, resolve_paths

_STATUS_S = 10.0  # in which a daemon that is not stuck shows its status
_MESSAGE_MAX = 2000  # characters; a longer one holds an argument or a path that nobody reads


class Verb(NamedTuple):
    """A verb, described without loading its `module`, which has add_arguments() and run(), or COMMANDS."""

    module: str
    help: str
    asks_prefect: bool = False  # the daemon waits for Prefect before it answers
    may_take_long: bool = False  # the daemon waits for programs of its own and for Prefect


VERBS = {
    "status": Verb("status", "show the host at a glance, or one run or deployment in full"),
    "runs": Verb("runs", "list the runs on this host"),
    "cancel": Verb("cancel", "cancel runs: end their processes and set them to Cancelled in Prefect"),
    "run": Verb("run", "create a flow run of a deployment, due now", asks_prefect=True),
    "logs": Verb("logs", "print the output of a run"),
    "retry": Verb("retry", "schedule a run that has ended again, with the same id, due now", asks_prefect=True),
    "plan": Verb("plan", "show what would be started for a deployment or run; start nothing", asks_prefect=True),
    "execute": Verb("execute", "start one existing flow run on this host now", asks_prefect=True),
    "deployments": Verb("deployments", "list the deployments of this host"),
    "pause": Verb("pause", "pause a deployment: its schedules create no runs", asks_prefect=True),
    "resume": Verb("pause", "resume a deployment: its schedules create runs again", asks_prefect=True),
    "pull": Verb("pull", "pull the code of a deployment now", may_take_long=True),
    "revert": Verb("pull", "hold a deployment at an earlier commit of its source, or release it", may_take_long=True),
    "pool": Verb("pool", "show and change work pools", asks_prefect=True),
    "queue": Verb("queue", "show and change work queues", asks_prefect=True),
    "drain": Verb("drain", "drain this host: claim no new runs, let the running ones end"),
    "undrain": Verb("drain", "end the drain of this host: claim runs again"),
    "init": Verb("init", "write runnerd.yaml from what is found on this host"),
    "add": Verb("add", "add a deployment of a flow: write, check and register its file", may_take_long=True),
    "reload": Verb("reload", "read the configuration again and print what changed", may_take_long=True),
    "import": Verb("import_", "make a drop-in of a prefect.yaml, a script that serves, a unit or a crontab"),
    "config": Verb("config", "check or show the configuration, or print its schema"),
    "health": Verb("health", "check that runnerd works: exit 0 if it does, else 1"),
    "doctor": Verb("doctor", "find problems of this host and print how to fix them"),
    "top": Verb("top", "show the status of the host, updated every 2 s; q quits"),
    "version": Verb("version", "print the versions of runnerctl and of the running runnerd"),
}


class Parser(argparse.ArgumentParser):
    """Prints an error on one line, and accepts no abbreviated options: a later option would change their meaning."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)
        self.help_of: str | None = None  # the parser of all verbs also refuses what follows the given one

    def error(self, message: str) -> NoReturn:
        self.exit(call.USAGE, f"runnerctl: {clean(_cut(message))}; see {self.help_of or self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    # The default action ends runnerctl without a traceback when the reader of its output closes the pipe.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except call.UsageError as error:
        return _print_error(error, call.USAGE)
    except RunnerdError as error:
        return _print_error(error, _choose_status(error))
    except KeyboardInterrupt:
        return call.INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    parser = _build_parser(argv)
    args = parser.parse_args(argv)
    _check_names(vars(args))
    path = getattr(args, "socket", None)
    if path == "":
        raise call.UsageError("cannot use --socket: the path is empty; leave the option out for the default")
    path = path or find_socket(os.environ, root=os.geteuid() == 0)
    console = Console.of_process(os.environ, json=getattr(args, "json", False))
    timeout_s = PREFECT_TIMEOUT_S if VERBS[args.verb].asks_prefect else TIMEOUT_S
    client = ControlClient(path, timeout_s=timeout_s, on_wait=_choose_notice(VERBS[args.verb], path, console))
    status: int = args.run(call.Call(args, client, console))
    sys.stdout.flush()
    return status


def _choose_notice(verb: Verb, path: str, console: Console) -> Callable[[], None] | None:
    """Choose what to do when an answer takes long: on a terminal, say for what runnerd waits."""
    if not (verb.asks_prefect or verb.may_take_long) or not sys.stderr.isatty():
        return None

    def notice() -> None:
        try:
            url = ControlClient(path, timeout_s=_STATUS_S).get("/v1/status")["api"]["url"]
        except (RunnerdError, LookupError, TypeError):
            return console.print_remark(f"runnerctl: waiting for runnerd at {path}, which does not answer")
        also = "" if verb.asks_prefect else "flows to be inspected, and "
        console.print_remark(f"runnerctl: waiting for {also}the API of Prefect at {url}")

    return notice


# Arguments that are no names: paths, and what the verb itself reads.
_UNCHECKED = {
    *("base_job_template", "config", "entrypoint", "flow", "parameter", "path", "python", "settled", "socket", "write")
}

# What messages call the value of an argument; of others, the argument's own name says it.
_NAMED = {
    "ref": "the name of a run or deployment",
    "refs": "the name of a run",
    "flow_run_id": "the id of a flow run",
    "deployment": "the name of a deployment",
    "commit": "a commit",
    "name": "a name",
    "params": "the file of --params",
    "tag": "a tag",
}

_MAY_BE_EMPTY = {"description", "reason"}


def _check_names(args: Mapping[str, Any]) -> None:
    """Refuse what cannot be a name or a description before it is sent, sought or printed. Raises UsageError."""
    for argument, value in args.items():
        unfitness = describe_unfit_text if argument == "description" else describe_unfit_name
        for text in value if isinstance(value, list) else [value]:
            if argument in _UNCHECKED or not isinstance(text, str):
                continue
            unfit = "is empty" if not text and argument not in _MAY_BE_EMPTY else unfitness(text)
            if unfit:
                raise call.UsageError(f"cannot use {cut(text)!r} as {_NAMED.get(argument, argument)}: the text {unfit}")


def find_socket(environ: Mapping[str, str], *, root: bool) -> str:
    """Find the control socket: that of the user's own runnerd, else the host's, which group runnerd may use.

    RUNTIME_DIRECTORY is not read: within a unit that calls runnerctl, systemd sets the directory of that unit.
    """
    if named := environ.get("RUNNERD_SOCKET"):
        return named
    users = {name: environ[name] for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME") if name in environ}
    own = resolve_paths(environ=users, root=root).control_socket
    host = control_socket(SYSTEM_RUNTIME)
    return host if os.path.exists(host) and not os.path.exists(own) else own


def _build_parser(argv: Sequence[str]) -> Parser:
    """Build the parser for the verb in `argv`, or for all verbs where none is given, which ends in help or an error.

    The parsers of the other verbs are not built: each costs a millisecond, in which argparse searches translations.
    """
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    places = "$RUNNERD_SOCKET, else your runnerd's, else the host's"
    common.add_argument("--socket", metavar="PATH", help=f"use this control socket ({places})")
    parser = Parser(prog="runnerctl", parents=[common], description="Inspect and control a running runnerd.")
    version = f"runnerctl {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version of runnerctl and exit")
    # Without `prog` argparse formats a usage line to find it, which loads shutil and every compression module.
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, prog=parser.prog)
    chosen, rest = _split_word(argv, VERBS)
    for verb in (chosen,) if chosen else VERBS:
        about = VERBS[verb].help
        its = verbs.add_parser(verb, help=about, description=about, parents=[common])
        if chosen:
            parser.help_of = its.prog
            module = importlib.import_module(f"runnerd.cli.verbs.{VERBS[verb].module}")
            if commands := getattr(module, "COMMANDS", None):
                _add_commands(its, commands, rest, common)
            else:
                module.add_arguments(its)
                its.set_defaults(run=module.run)
    return parser


def _add_commands(parser: Parser, commands: Mapping[str, Command], words: Sequence[str], common: Parser) -> None:
    """Add the given command of a verb, or all of its commands where none is given."""
    chosen, rest = _split_word(words, commands)
    adding = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=parser.prog)
    for command in (chosen,) if chosen else commands:
        about = commands[command].help
        its = adding.add_parser(command, help=about, description=about, parents=[common])
        commands[command].add_arguments(its)
        its.set_defaults(run=commands[command].run)
    if not chosen and not rest:
        parser.print_help(sys.stderr)
        parser.error("no command is given")


def _split_word(argv: Sequence[str], known: Mapping[str, Any]) -> tuple[str | None, Sequence[str]]:
    """Split off the first word that is not a common option, if it is in `known`; else return None and the rest."""
    words = iter(argv)
    for word in words:
        if word == "--socket":
            next(words, None)
        elif word not in ("--json", "--") and not word.startswith("--socket="):
            return (word, list(words)) if word in known else (None, [word, *words])
    return None, ()


def _choose_status(error: RunnerdError) -> int:
    by_status = {0: call.NOT_RUNNING, 403: call.NOT_PERMITTED, 404: call.NOT_FOUND}
    return by_status.get(getattr(error, "status", -1), call.FAILED)


def _print_error(error: Exception, status: int) -> int:
    print(f"runnerctl: {clean(_cut(' '.join(str(error).splitlines())))}", file=sys.stderr)
    return status


def _cut(message: str) -> str:
    return message if len(message) <= _MESSAGE_MAX else f"{message[:_MESSAGE_MAX]}..."


if __name__ == "__main__":
    sys.exit(main())
