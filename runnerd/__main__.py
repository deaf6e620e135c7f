"""Parses the daemon's command line (`runnerd`), and serves, checks the configuration or runs the demo."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from runnerd import __version__
from runnerd.system.paths import Paths, resolve_paths

if TYPE_CHECKING:  # `runnerd check` and `runnerd --version` do not load the daemon's modules
    from runnerd.config import HostDefaults
    from runnerd.daemon.options import Options
    from runnerd.log.journald import Journald
    from runnerd.log.log import Log

EX_CONFIG = 78


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of the command line and return the exit status."""
    args = _parse_arguments(argv)
    if args.command == "demo":
        from runnerd.demo import run_demo

        return run_demo(examples=args.examples)
    if args.command == "check":
        return _check(args)
    return _serve(args)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _build_parser()
    args = parser.parse_args(argv)
    if (args.pid_file or args.log_file) and not args.daemonize:
        parser.error("cannot use --pid-file or --log-file without --daemonize; add --daemonize")
    if args.daemonize and args.command:
        parser.error(f"cannot use --daemonize with {args.command}; remove --daemonize")
    return args


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runnerd",
        description="Run this host's Prefect deployments. Without a command, serve in the foreground.",
    )
    version = f"runnerd {__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version and exit")
    default = resolve_paths(environ=os.environ, root=os.geteuid() == 0)
    config = _describe("read runnerd.yaml and conf.d from this directory", default.config)
    directories = argparse.ArgumentParser(add_help=False)
    directories.add_argument("--config", metavar="DIR", default=argparse.SUPPRESS, help=config)
    parser.add_argument("--config", metavar="DIR", help=config)
    for name, text in (
        ("runtime", _describe("create the control socket in this directory", default.runtime)),
        ("state", _describe("store the journal in this directory", default.state)),
        ("log", _describe("store the output of flows in this directory", default.log)),
    ):
        parser.add_argument(f"--{name}-dir", metavar="DIR", help=text)
    parser.add_argument("--once", action="store_true", help="poll once, wait for the runs to end, and exit")
    parser.add_argument(
        "--log-format",
        choices=("auto", "console", "json"),
        default="auto",
        help="log lines, JSON, or what suits standard error: entries for systemd's journal, else lines (auto)",
    )
    parser.add_argument("--debug", action="store_true", help="log debug messages too")
    _add_background(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    check = "check the configuration, print every problem, and exit (78 if there is one)"
    commands.add_parser("check", parents=[directories], help=check, description=check)
    tour = "run a five-minute tour: a server, runnerd and three flows, in a scratch directory"
    demo = commands.add_parser("demo", help=tour, description=tour)
    demo.add_argument("--examples", metavar="DIR", help="take the examples from this directory (etc/runnerd)")
    return parser


def _describe(text: str, default: str) -> str:
    """Add the default to a help text; argparse would interpret a percent sign in it."""
    return f"{text} ({default.replace('%', '%%')})"


def _add_background(parser: argparse.ArgumentParser) -> None:
    background = parser.add_argument_group("hosts without systemd")
    background.add_argument(
        "--daemonize",
        action="store_true",
        help="serve in the background: exit 0 once the daemon is ready, or print why it cannot start",
    )
    background.add_argument(
        "--pid-file",
        metavar="F",
        help="with --daemonize: write the daemon's PID here; removed on exit (RUNTIME-DIR/runnerd.pid)",
    )
    background.add_argument(
        "--log-file",
        metavar="F",
        help="with --daemonize: write the log here; reopened at SIGHUP (LOG-DIR/runnerd.log)",
    )


def _check(args: argparse.Namespace) -> int:
    from runnerd.config import check, find_defaults
    from runnerd.system.service_environment import merge_environments, read_service_environment

    paths = _resolve_paths(args)
    environ = merge_environments(os.environ, read_service_environment(paths.config))
    config, problems = check(paths.config, defaults=find_defaults(environ, root=os.geteuid() == 0))
    for problem in problems:
        print(problem, file=sys.stderr)
    for warning in config.warnings if config is not None else ():
        print(f"warning: {warning}", file=sys.stderr)
    if config is None or problems:
        print(f"{paths.config}: {len(problems)} problem{'' if len(problems) == 1 else 's'}", file=sys.stderr)
        return EX_CONFIG
    count = len(config.deployments)
    print(f"{paths.config}: {count} deployment{'' if count == 1 else 's'}, no problem")
    return 0


def _serve(args: argparse.Namespace) -> int:
    if args.daemonize:
        from runnerd.daemon.daemonize import open_standard_streams

        open_standard_streams()
    from runnerd.log.alerts import Alert
    from runnerd.log.journald import is_journal_stream, open_journald
    from runnerd.log.log import make_log

    faulthandler.enable(file=2)  # the watchdog's SIGABRT then logs where every thread hangs
    under_systemd = not args.daemonize and is_journal_stream(os.environ.get("JOURNAL_STREAM"), 2)
    journald = open_journald() if under_systemd else None
    entries = journald.log if journald is not None and args.log_format == "auto" else None
    log = make_log(log_format=args.log_format, journald=under_systemd, debug=args.debug, entries=entries)
    try:
        return _report_errors(
            lambda: _detach(args) if args.daemonize else _run(args, log, journald),
            log=log,
            say=_complain if entries is None else partial(log.error, alert=Alert.CANNOT_START),
        )
    finally:
        if journald is not None:
            journald.close()


def _complain(text: str) -> None:
    print(f"runnerd: {text}", file=sys.stderr)


def _report_errors(work: Callable[[], int], *, log: Log, say: Callable[[str], None]) -> int:
    """Run `work` and return the exit status; report its errors with `say`."""
    from runnerd.core.errors import ConfigError, RunnerdError
    from runnerd.log.alerts import Alert

    try:
        return work()
    except ConfigError as error:
        for problem in error.problems:
            say(str(problem))
        return EX_CONFIG
    except RunnerdError as error:
        say(str(error))
        return 1
    except ExceptionGroup as group:
        known, others = group.split(RunnerdError)
        for leaf in _iterate_leaves(known):
            say(str(leaf))
        if others is not None:
            why = "a loop failed; the daemon exits, and the next daemon adopts every run"
            log.error(why, exc_info=others, alert=Alert.FAULT)
        return 1


def _run(args: argparse.Namespace, log: Log, journald: Journald | None) -> int:
    from runnerd.daemon.container_init import become_init

    if os.getpid() == 1 and (status := become_init(os.environ)) is not None:
        return status  # before the daemon's modules are loaded, because a parent that only waits needs none of them
    from runnerd.config import load
    from runnerd.daemon.options import Options
    from runnerd.system.directories import lock_state, make_directories

    paths, defaults = _resolve_paths(args), _make_defaults()
    # Load once before anything is created, so that nothing is left behind when runnerd.yaml is broken. The load that
    # counts is in _live: it takes the last good configuration from the journal for files that are broken now.
    load(paths.config, defaults=defaults)
    make_directories(paths)
    with lock_state(paths):
        return _live(paths, log, Options(once=args.once, journald=journald))


def _detach(args: argparse.Namespace) -> int:
    from runnerd.config import load
    from runnerd.daemon.daemonize import Background, start_daemon
    from runnerd.daemon.options import Options
    from runnerd.log.log import make_log

    paths = _resolve_paths(args)
    load(paths.config, defaults=_make_defaults())  # to print the problems on the terminal

    def serve(background: Background) -> int:
        log = make_log(log_format=args.log_format, journald=False, stream=background.stream, debug=args.debug)
        options = Options(once=args.once, ready=background.report_ready, hangup=background.reopen_log)

        def work() -> int:
            background.begin(log)
            return _live(paths, log, options)

        return _report_errors(work, log=log, say=background.report_failure)

    return start_daemon(
        paths=paths,
        pid_file=_absolute(args.pid_file) or os.path.join(paths.runtime, "runnerd.pid"),
        log_file=_absolute(args.log_file) or os.path.join(paths.log, "runnerd.log"),
        environ=os.environ,
        serve=serve,
    )


def _live(paths: Paths, log: Log, options: Options) -> int:
    """Serve until stopped; the directories exist and are locked."""
    from runnerd.config import load
    from runnerd.daemon.build import Daemon
    from runnerd.daemon.service import Service
    from runnerd.journal.journal import Journal
    from runnerd.system.ambient import real_ambient
    from runnerd.system.directories import clear_work_dir, journal_path
    from runnerd.system.systemd import unset_variables

    clear_work_dir(paths)
    defaults = _make_defaults()
    ambient = real_ambient(log)
    journal = Journal(path=journal_path(paths), now=ambient.now, log=log)
    daemon = Daemon(
        paths=paths,
        options=options,
        defaults=defaults,
        config=load(paths.config, defaults=defaults, last_good=journal.last_good()),
        journal=journal,
        environ=dict(os.environ),
        ambient=ambient,
    )
    unset_variables(os.environ)
    return asyncio.run(Service(daemon=daemon, options=options).run())


def _resolve_paths(args: argparse.Namespace) -> Paths:
    return resolve_paths(
        environ=os.environ,
        root=os.geteuid() == 0,
        config=_absolute(args.config),
        runtime=_absolute(args.runtime_dir),
        state=_absolute(args.state_dir),
        log=_absolute(args.log_dir),
    )


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None


def _make_defaults() -> HostDefaults:
    from runnerd.config import find_defaults

    return find_defaults(os.environ, root=os.geteuid() == 0)


def _iterate_leaves(group: BaseException | None) -> Iterator[BaseException]:
    """Yield the exceptions of a group that are not groups themselves."""
    if isinstance(group, BaseExceptionGroup):
        for error in group.exceptions:
            yield from _iterate_leaves(error)
    elif group is not None:
        yield group


if __name__ == "__main__":
    sys.exit(main())
