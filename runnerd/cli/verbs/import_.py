"""runnerctl import: make a drop-in of what runs flows without runnerd (without the daemon)."""

from __future__ import annotations

import os
from argparse import ArgumentParser

from runnerd.cli.call import DONE, FAILED, Call
from runnerd.cli.console import Console
from runnerd.cli.text import format_count
from runnerd.core.errors import RunnerdError
from runnerd.core.place import problem_document


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "path",
        metavar="PATH",
        help="a prefect.yaml, a script that serves flows, a systemd unit (its file or name) or a crontab; -: lines of a"
        " crontab on standard input",
    )
    parser.add_argument("--write", metavar="DIR", help="write the drop-in into this directory (default: print it)")
    parser.add_argument("--python", metavar="PATH", help="read a script in this interpreter (default: its own)")


def run(call: Call) -> int:
    # Not at the top, because they load what reads the configuration.
    from runnerd.cli.imports.drop_in import fit, name_file, write_text
    from runnerd.cli.imports.found import ImportRefused
    from runnerd.cli.imports.origin import import_origin
    from runnerd.cli.judging import read_judging
    from runnerd.cli.verbs.config import find_config

    origin, console = call.args.path, call.console
    try:
        found = import_origin(origin, python=call.args.python, environ=os.environ)
    except ImportRefused as error:
        for line in error.detail.splitlines():
            console.print_remark(line)
        raise
    directory = _find_directory(call.args.write) or find_config(os.environ, root=os.geteuid() == 0)
    problems = fit(found, defaults=read_judging(call.client, directory).defaults, directory=directory)
    text = write_text(found, origin=origin)
    names = [str(one["name"]) for one in found.deployments if one.get("name")]  # else the host's
    written = None
    if call.args.write is not None and not problems:
        written = _write(text, os.path.join(call.args.write, name_file(origin, names)))
    if console.json:
        document = {
            "drop_in": text,
            "written": written,
            "deployments": names,
            "pools": [one["name"] for one in found.pools],
            "left_out": [{"message": one.message, "place": one.place} for one in found.left_out],
            "problems": [problem_document(one) for one in problems],
        }
        console.print_document(document)
    elif call.args.write is None:
        _print_lines(console, text)
    _print_remarks(call, [str(one) for one in found.left_out], [one.message for one in problems])
    if written is not None:
        console.print_remark(f"wrote {written}")
    return FAILED if problems else DONE


def _print_lines(console: Console, text: str) -> None:
    for line in text.splitlines():
        console.print_line(line)


def _print_remarks(call: Call, left_out: list[str], problems: list[str]) -> None:
    for words in left_out:
        call.console.print_remark(f"not carried over: {words}")
    for words in problems:
        call.console.print_remark(f"runnerctl: {words}")
    if problems:
        not_written = "" if call.args.write is None else "; nothing was written"
        count = format_count(len(problems), "problem")
        call.console.print_remark(f"runnerctl: this host cannot use it yet: {count}{not_written}")


def _find_directory(folder: str | None) -> str | None:
    """Find the configuration directory of the drop-ins' directory to write into."""
    above, name = os.path.split(os.path.abspath(folder or ""))
    return above if folder is not None and name == "conf.d" else None


def _write(text: str, path: str) -> str:
    """Write a new file. Raises ImportRefused where there is one, or where none can be made."""
    from runnerd.cli.imports.found import ImportRefused
    from runnerd.cli.new_files import Exists, beginning, finish

    try:
        with beginning(path, text) as draft:
            finish(draft, path)
    except Exists:
        raise ImportRefused(f"cannot write {path}: it exists; remove it, or name another directory") from None
    except RunnerdError as error:
        raise ImportRefused(str(error)) from None
    return path
