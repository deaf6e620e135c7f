"""`runnerd`: the daemon's command line."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runnerd import __version__
from runnerd.paths import Paths, resolve_paths

if TYPE_CHECKING:  # `runnerd check` and `runnerd --version` do without the daemon's modules
    from runnerd.config import HostDefaults
    from runnerd.logs import Log

EX_CONFIG = 78


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit status."""
    args = _parser().parse_args(argv)
    if args.command == "demo":
        from runnerd.demo import run_demo

        return run_demo(examples=args.examples)
    if args.command == "check":
        return _check(args)
    return _serve(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="runnerd",
        description="Run this host's Prefect deployments. Without a command: serve in the foreground.",
    )
    parser.add_argument("--version", action="version", version=f"runnerd {__version__}")
    directories = argparse.ArgumentParser(add_help=False)
    directories.add_argument(
        "--config", metavar="DIR", default=argparse.SUPPRESS, help="where runnerd.yaml and conf.d are"
    )
    for name, text in (
        ("runtime", "where the control socket is"),
        ("state", "where the journal is"),
        ("log", "where the flows' output goes"),
    ):
        parser.add_argument(f"--{name}-dir", metavar="DIR", help=text)
    parser.add_argument("--config", metavar="DIR", help="where runnerd.yaml and conf.d are")
    parser.add_argument("--once", action="store_true", help="poll once, wait for the runs, and exit")
    parser.add_argument("--log-format", choices=("auto", "console", "json"), default="auto")
    parser.add_argument("--debug", action="store_true", help="log more")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("check", parents=[directories], help="check the configuration and exit")
    demo = commands.add_parser(
        "demo", help="a five-minute tour: a server, runnerd and three flows, all in a scratch directory"
    )
    demo.add_argument("--examples", metavar="DIR", help="where the examples are (default: etc/runnerd)")
    return parser


def _check(args: argparse.Namespace) -> int:
    from runnerd.config import check

    paths = _paths(args)
    config, problems = check(paths.config, defaults=_defaults())
    for problem in problems:
        print(problem, file=sys.stderr)
    if config is None or problems:
        print(f"{paths.config}: {len(problems)} problem{'' if len(problems) == 1 else 's'}", file=sys.stderr)
        return EX_CONFIG
    count = len(config.deployments)
    print(f"{paths.config}: {count} deployment{'' if count == 1 else 's'}, no problem")
    return 0


def _serve(args: argparse.Namespace) -> int:
    from runnerd.errors import ConfigError, RunnerdError
    from runnerd.logs import make_log

    log = make_log(log_format=args.log_format, journald=bool(os.environ.get("JOURNAL_STREAM")), debug=args.debug)
    try:
        return _run(args, log)
    except ConfigError as error:
        for problem in error.problems:
            print(f"runnerd: {problem}", file=sys.stderr)
        return EX_CONFIG
    except RunnerdError as error:
        print(f"runnerd: {error}", file=sys.stderr)
        return 1
    except ExceptionGroup as group:
        known, others = group.split(RunnerdError)
        for leaf in _leaves(known):
            print(f"runnerd: {leaf}", file=sys.stderr)
        if others is not None:
            log.error("a loop failed; the daemon ends and its successor adopts every run", exc_info=others)
        return 1


def _run(args: argparse.Namespace, log: Log) -> int:
    from runnerd.config import load
    from runnerd.daemon import Daemon, Options
    from runnerd.directories import journal_path, lock, prepare
    from runnerd.journal import Journal
    from runnerd.systemd import unset

    paths, defaults = _paths(args), _defaults()
    # Read once before anything is made, so that a broken runnerd.yaml leaves no trace; what was good last time
    # stands in for files that are broken now, and that is in the journal.
    load(paths.config, defaults=defaults)
    prepare(paths)
    with lock(paths):
        journal = Journal(path=journal_path(paths), now=lambda: datetime.now(UTC), log=log)
        daemon = Daemon(
            paths=paths,
            options=Options(once=args.once),
            defaults=defaults,
            config=load(paths.config, defaults=defaults, last_good=journal.last_good()),
            journal=journal,
            environ=dict(os.environ),
            log=log,
        )
        unset(os.environ)
        return asyncio.run(daemon.run())


def _paths(args: argparse.Namespace) -> Paths:
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


def _defaults() -> HostDefaults:
    from runnerd.config import HostDefaults

    return HostDefaults(
        hostname=socket.gethostname(),
        python=sys.executable,
        api_url=os.environ.get("PREFECT_API_URL"),
        flow_user=os.environ.get("RUNNERD_FLOW_USER") or None,
    )


def _leaves(group: BaseException | None) -> Iterator[BaseException]:
    """The exceptions at the ends of a group."""
    if isinstance(group, BaseExceptionGroup):
        for error in group.exceptions:
            yield from _leaves(error)
    elif group is not None:
        yield group


if __name__ == "__main__":
    sys.exit(main())
