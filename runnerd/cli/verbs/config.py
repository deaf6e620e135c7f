"""runnerctl config: check the configuration (without the daemon), show the one in force, print its schema."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Mapping

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.text import clean, format_count
from runnerd.core.place import problem_document
from runnerd.system.paths import resolve_paths


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "what",
        metavar="COMMAND",
        choices=("check", "show", "schema"),
        help="check: print the problems of the files; show: the configuration in force; schema: the files' JSON schema",
    )
    parser.add_argument(
        "path",
        nargs="?",
        metavar="PATH",
        help="with check: a directory or one file (default: the configuration directory)",
    )


def run(call: Call) -> int:
    if call.args.what == "show":
        call.console.print_document(call.client.get("/v1/config"))  # with and without --json, because JSON is YAML too
        return DONE
    if call.args.what == "schema":
        from runnerd.config import read_schema  # not at the top, because it is slow to load

        for line in read_schema().splitlines():
            call.console.print_line(line)
        return DONE
    return _check(call, call.args.path or find_config(os.environ, root=os.geteuid() == 0))


def find_config(environ: Mapping[str, str], *, root: bool) -> str:
    """Find the directory to check: the user's own, else the host's."""
    own = resolve_paths(environ=environ, root=root).config
    host = resolve_paths(environ={}, root=True).config
    return host if os.path.exists(host) and not os.path.exists(own) else own


def _find_directory(path: str) -> str:
    """Find the configuration directory of a path to check, which may be one of its files."""
    if not os.path.isfile(path):
        return path
    folder = os.path.dirname(os.path.abspath(path))
    return os.path.dirname(folder) if os.path.basename(folder) == "conf.d" else folder


def _check(call: Call, path: str) -> int:
    from runnerd.cli.judging import read_judging
    from runnerd.config import check

    judging = read_judging(call.client, _find_directory(path))
    config, problems = check(path, defaults=judging.defaults)
    if call.console.json:
        found = [problem_document(its) for its in problems]
        vain = [problem_document(its) for its in config.warnings] if config is not None else []
        document = {"ok": not problems, "problems": found, "warnings": vain, "judged_by": judging.source}
        call.console.print_document(document)
        return FAILED if problems else DONE
    for its in problems:
        call.console.print_line(clean(its))
    for its in config.warnings if config is not None else ():
        call.console.print_line(f"warning: {clean(its)}")
    if (remark := judging.describe()) is not None:
        call.console.print_remark(f"runnerctl: {remark}")
    if problems or config is None:
        call.console.print_remark(f"runnerctl: found {format_count(len(problems), 'problem')} in {path}")
        return FAILED
    pools = f", {format_count(len(config.pools), 'pool')}" if config.pools else ""
    call.console.print_line(f"{path}: {format_count(len(config.deployments), 'deployment')}{pools}, no problem")
    return DONE
