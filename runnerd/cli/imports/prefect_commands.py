"""Makes entries of `prefect worker start`, `prefect agent start` and `prefect flow serve`, by their options."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from typing import NoReturn

from runnerd.cli.imports.commands import Command
from runnerd.cli.imports.found import Found, ImportRefused, Surroundings
from runnerd.core.place import Json

_AGENT_POOL = "default-agent-pool"
_ENTRY_OF_CREDENTIALS = {
    "PREFECT_API_URL": "api.url of runnerd.yaml",
    "PREFECT_API_KEY": "api.key_file of runnerd.yaml (the value is not shown)",
    "PREFECT_API_AUTH_STRING": "api.auth_string_file of runnerd.yaml (the value is not shown)",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ImportRefused(f"cannot import {self.prog}: {message}")


def import_command(command: Command, around: Surroundings, found: Found) -> None:
    """Add what one of Prefect's own commands serves to `found`. Raises ImportRefused."""
    make: dict[str | None, Callable[[Command, Surroundings, Found], None]] = {
        "worker": _import_worker,
        "agent": _import_agent,
        "serve": _import_flow,
    }
    if command.profile is not None:
        found.leave_out(
            around.place, f"--profile {command.profile}: runnerd reads no profiles; set api.url and its key"
        )
    make[command.kind](command, around, found)


def leave_out_credentials(around: Surroundings, found: Found) -> None:
    """Take the URL and the credentials of the API out of the environment: they are the host's."""
    for name, belongs in _ENTRY_OF_CREDENTIALS.items():
        value = around.environment.pop(name, None)
        if value is not None:
            shown = f"{name}={value}" if name.endswith("_URL") and "@" not in value else name
            found.leave_out(around.place, f"{shown}: {belongs}")


def find_interpreter(command: Command, around: Surroundings) -> str | None:
    """Find the interpreter of a command: itself, or the one beside the program `prefect`."""
    if command.activated is not None:
        return os.path.join(around.directory, command.activated, "bin", "python")
    program = command.program
    if program and "/" not in program:
        program = shutil.which(program, path=around.environment.get("PATH") or os.environ.get("PATH")) or ""
    if not program:
        return None
    program = os.path.join(around.directory, program)
    return program if "python" in os.path.basename(program) else os.path.join(os.path.dirname(program), "python")


def _parser(around: Surroundings, verb: str) -> _Parser:
    return _Parser(prog=f"{around.place}: prefect {verb}", add_help=False, allow_abbrev=False)


def _parse(parser: _Parser, words: Sequence[str], around: Surroundings, found: Found) -> argparse.Namespace:
    said, unknown = parser.parse_known_args(list(words))
    if unknown:
        found.leave_out(around.place, f"{' '.join(unknown)}: not known here")
    return said


def _add_pool_options(parser: _Parser) -> None:
    parser.add_argument("-p", "--pool")
    parser.add_argument("-q", "--work-queue", action="append", default=[], dest="queues")
    parser.add_argument("--prefetch-seconds", type=int, dest="prefetch")
    parser.add_argument("-l", "--limit", type=int)
    parser.add_argument("--run-once", action="store_true")
    parser.add_argument("--no-run-once", action="store_false", dest="run_once")


def _import_worker(command: Command, around: Surroundings, found: Found) -> None:
    parser = _parser(around, "worker start")
    _add_pool_options(parser)
    for option in ("-n", "--name"), ("-t", "--type"), ("--install-policy",), ("--base-job-template",):
        parser.add_argument(*option)
    parser.add_argument("--with-healthcheck", action="store_true")
    parser.add_argument("--no-with-healthcheck", action="store_false", dest="with_healthcheck")
    parser.add_argument("--create-pool-if-not-found", action="store_true", dest="create", default=None)
    parser.add_argument("--no-create-pool-if-not-found", action="store_false", dest="create")
    parser.add_argument("--empty-work-queue", action="store_true")
    for flag in ("--prompt", "--no-prompt"):
        parser.add_argument(flag, action="store_true")
    said = _parse(parser, command.arguments, around, found)
    if not said.pool:
        raise ImportRefused(f"cannot import {around.place}: prefect worker start needs --pool")
    entry = _pool(said, around, command)
    entry |= {"type": said.type, "install_policy": said.install_policy, "base_job_template": said.base_job_template}
    if said.base_job_template:
        entry["base_job_template"] = os.path.join(around.directory, said.base_job_template)
    if said.create is False:
        entry["create"] = False
    if said.name:
        found.leave_out(around.place, f"--name {said.name}: the worker has the name of the host, name of runnerd.yaml")
    if said.with_healthcheck:
        found.leave_out(around.place, "--with-healthcheck: http.listen of runnerd.yaml")
    _add_pool(entry, said, around, found)


def _import_agent(command: Command, around: Surroundings, found: Found) -> None:
    parser = _parser(around, "agent start")
    _add_pool_options(parser)
    parser.add_argument("names", nargs="*")
    parser.add_argument("-m", "--match", action="append", default=[])
    parser.add_argument("-t", "--tag", action="append", default=[])
    parser.add_argument("--api")
    parser.add_argument("--hide-welcome", action="store_true")
    said = _parse(parser, command.arguments, around, found)
    said.queues = [*said.names, *said.queues]
    entry = _pool(said, around, command)
    if not said.pool:
        entry |= {"name": _AGENT_POOL, "type": "prefect-agent"}
    if said.match and said.queues:
        found.leave_out(around.place, f"-m {' -m '.join(said.match)}: a pool has queues or match; add them to match")
    elif said.match:
        entry["match"] = said.match
    if said.tag:
        found.leave_out(around.place, f"-t {' -t '.join(said.tag)}: queues by tags are deprecated; name the queues")
    if said.api:
        found.leave_out(around.place, f"--api {said.api}: api.url of runnerd.yaml")
    _add_pool(entry, said, around, found)


def _pool(said: argparse.Namespace, around: Surroundings, command: Command) -> dict[str, Json]:
    prefetch = f"{said.prefetch}s" if said.prefetch is not None else None
    run = around.run_section(find_interpreter(command, around))
    run.pop("working_directory", None)  # that of the worker is not that of its runs
    return {"name": said.pool, "queues": said.queues, "limit": said.limit, "prefetch": prefetch, "run": run}


def _add_pool(entry: dict[str, Json], said: argparse.Namespace, around: Surroundings, found: Found) -> None:
    if said.run_once:
        found.leave_out(around.place, "--run-once: runnerd serves the pool all the time; runnerd --once does so once")
    found.pools.append({key: value for key, value in entry.items() if value not in (None, [], {})})


def _import_flow(command: Command, around: Surroundings, found: Found) -> None:
    parser = _parser(around, "flow serve")
    parser.add_argument("entrypoint")
    for option in ("-n", "--name"), ("-d", "--description"), ("-v", "--version"), ("--cron",), ("--rrule",):
        parser.add_argument(*option)
    parser.add_argument("-t", "--tag", action="append", default=[])
    parser.add_argument("--interval", type=float)
    for rule in ("--anchor-date", "--timezone"):
        parser.add_argument(rule)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--global-limit", type=int)
    parser.add_argument("--pause-on-shutdown", action="store_true", default=None)
    parser.add_argument("--no-pause-on-shutdown", action="store_false", dest="pause_on_shutdown")
    said = _parse(parser, command.arguments, around, found)
    if not said.name:
        raise ImportRefused(f"cannot import {around.place}: prefect flow serve needs --name")
    schedule = {
        "cron": said.cron,
        "rrule": said.rrule,
        "interval": said.interval,
        "anchor_date": said.anchor_date,
        "timezone": said.timezone,
    }
    said_rule = {key: value for key, value in schedule.items() if value is not None}
    run = around.run_section(find_interpreter(command, around))
    run["limit"] = said.limit
    entry = {
        "name": said.name,
        "entrypoint": os.path.normpath(said.entrypoint),
        "schedules": [said_rule] if said_rule else None,
        "description": said.description,
        "version": said.version,
        "tags": said.tag,
        "concurrency_limit": said.global_limit,
        "pause_on_shutdown": said.pause_on_shutdown,
        "run": {key: value for key, value in run.items() if value is not None},
    }
    found.deployments.append({key: value for key, value in entry.items() if value not in (None, [])})
