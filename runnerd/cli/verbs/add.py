"""runnerctl add: write a drop-in for a flow of a file, check it, register it, and say what to try next."""

from __future__ import annotations

import os
import shlex
from argparse import ArgumentParser
from typing import TYPE_CHECKING, NamedTuple

from runnerd.cli.call import DONE, FAILED, Call, UsageError
from runnerd.cli.flow_files import FlowFile, file_name, find_flow, locate
from runnerd.cli.judging import read_judging
from runnerd.cli.new_files import Exists, beginning, finish, make_directory
from runnerd.cli.text import clean, format_count
from runnerd.cli.verbs.config import find_config
from runnerd.cli.verbs.init import check_draft, dump
from runnerd.cli.verbs.reload import RELOAD_TIMEOUT_S
from runnerd.control.client import Json, quote
from runnerd.core.errors import ControlError, RunnerdError
from runnerd.core.place import problem_document

if TYPE_CHECKING:
    from runnerd.core.place import Problem


class Added(NamedTuple):
    """The deployment that is added: its name, its drop-in and that file's text."""

    name: str
    path: str
    text: str
    flow: FlowFile


class Registered(NamedTuple):
    """What became of the registration; `state` None: no daemon has read the file, `why` says so, `start` starts one."""

    state: str | None
    why: str | None
    start: str | None = None


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("flow", metavar="FILE.py:FLOW", help="the file, and the name of the flow's function in it")
    parser.add_argument("--name", metavar="N", help="the deployment's name (default: that of the function)")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--cron", metavar="EXPRESSION", help='schedule it, as "0 2 * * *" (default: no schedule)')
    when.add_argument("--interval", metavar="DURATION", help="schedule it, as 10m or a number of seconds")
    when.add_argument("--rrule", metavar="RULE", help="schedule it, as FREQ=DAILY;BYHOUR=9")
    parser.add_argument("--timezone", metavar="ZONE", help="of the schedule, as Europe/Berlin (default: UTC)")
    parser.add_argument("--user", metavar="U", help="run it as this user (default: run.user of the host)")
    parser.add_argument(
        "--config", metavar="DIR", help="the configuration directory (default: that of the running runnerd)"
    )


def run(call: Call) -> int:
    path, function = find_flow(call.args.flow)
    directory = _choose_directory(call)
    flow, name = locate(path, function), call.args.name or function.rpartition(".")[2]
    added = Added(name, os.path.join(directory, "conf.d", file_name(name)), make_text(call, flow, name), flow)
    _require_free(call, directory, added)
    make_directory(os.path.dirname(added.path))
    with beginning(added.path, added.text) as draft:
        problems = check_draft(call, draft, added.path)
        if problems:
            return _report_problems(call, added, problems)
        try:
            finish(draft, added.path)
        except Exists:
            raise Exists(_describe_existing(added.path)) from None
    return _report(call, added, register(call, directory, added))


def _choose_directory(call: Call) -> str:
    """Choose the directory of --config, else that of the daemon, else that of the host or the user."""
    if call.args.config == "":
        raise UsageError("cannot use --config: the path is empty; leave the option out for the default")
    if call.args.config is not None:
        return os.path.abspath(str(call.args.config))
    return find_daemons_directory(call) or os.path.abspath(find_config(os.environ, root=os.geteuid() == 0))


def find_daemons_directory(call: Call) -> str | None:
    """Ask the running daemon for its configuration directory; None without an answer."""
    try:
        service = call.client.get("/v1/config").get("service")
    except ControlError:
        return None
    directory = service.get("directory") if isinstance(service, dict) else None
    return directory if isinstance(directory, str) else None


# --- the file -----------------------------------------------------------------------------------------------------


def make_text(call: Call, flow: FlowFile, name: str) -> str:
    """Make the text of the drop-in. Raises UsageError for a time zone without a schedule that has one."""
    deployment: dict[str, Json] = {"name": name, "entrypoint": flow.entrypoint}
    schedule = _schedule(call)
    if schedule is not None:
        deployment["schedules"] = [schedule]
    run: dict[str, Json] = {}
    if flow.python is not None:
        run["python"] = flow.python
    if call.args.user is not None:
        run["user"] = call.args.user
    run["working_directory"] = flow.directory
    text = dump({"deployments": [{**deployment, "run": run}]})
    return f"# Written by runnerctl add. See runnerd.yaml(5) for more keys.\n{text}"


def _schedule(call: Call) -> Json:
    args = call.args
    kinds: dict[str, Json] = {"cron": args.cron, "interval": args.interval, "rrule": args.rrule}
    schedule = {kind: value for kind, value in kinds.items() if value is not None}
    if "interval" in schedule and args.interval.isdecimal():
        schedule["interval"] = int(args.interval)
    if args.timezone is None:
        return schedule or None
    if not schedule:
        raise UsageError("cannot use --timezone without a schedule; give --cron, --interval or --rrule too")
    return {**schedule, "timezone": args.timezone}


def _require_free(call: Call, directory: str, added: Added) -> None:
    """Raise RunnerdError where the files have a deployment of this name, or the drop-in's path is taken.

    A deployment of another flow may have the same name in Prefect; here one name is one deployment, because that is how
    runnerctl names it.
    """
    from runnerd.config import check

    if not os.path.isdir(directory):
        raise RunnerdError(f"cannot add {added.name}: there is no directory {directory}; runnerctl init makes it")
    config, problems = check(directory, defaults=read_judging(call.client, directory).defaults)
    if config is None:
        first = f"{problems[0]}; " if problems else ""
        raise RunnerdError(f"cannot add {added.name}: {first}runnerctl config check {directory} lists all problems")
    known = [*((one.name, one.place) for one in config.deployments), *((one.name, one.place) for one in config.invalid)]
    for name, place in known:
        if name == added.name:
            advice = "give this one another name with --name, or edit that file"
            raise Exists(f"cannot add {added.name}: a deployment of this name is at {place}; {advice}")
    if os.path.lexists(added.path):
        raise Exists(_describe_existing(added.path))


def _describe_existing(path: str) -> str:
    return (
        f"cannot write {path}: it exists already; edit it, remove it, or give the deployment another name with --name"
    )


# --- the registration ---------------------------------------------------------------------------------------------


def register(call: Call, directory: str, added: Added) -> Registered:
    """Have the running daemon read its files, and say what became of the deployment."""
    served = find_daemons_directory(call)
    if served is None:
        start = _choose_start(directory)
        return Registered(None, "no runnerd is running; it registers the deployment when it starts", start)
    if os.path.realpath(served) != os.path.realpath(directory):
        return Registered(None, f"the running runnerd reads {served}, and not this directory")
    try:
        result = call.client.post("/v1/reload", timeout_s=RELOAD_TIMEOUT_S)
        its = call.client.get(f"/v1/deployments/{quote(added.name)}")
    except ControlError as error:
        return Registered("unregistered", f"the file is written, and not registered yet: {error}")
    problem = its["problem"]
    if its["state"] == "unregistered" and problem is None:
        others = [one["message"] for one in result["problems"]]
        problem = others[0] if others else "it is still being registered; see runnerctl status"
    return Registered(its["state"], problem)


def _choose_start(directory: str) -> str:
    """Choose the command that starts the daemon which reads this directory."""
    root = os.geteuid() == 0
    if os.path.realpath(directory) != os.path.realpath(find_config(os.environ, root=root)):
        return f"runnerd --config {shlex.quote(directory)}"
    return "systemctl start runnerd" if root and os.path.isdir("/run/systemd/system") else "runnerd"


# --- what is printed ----------------------------------------------------------------------------------------------


def _report_problems(call: Call, added: Added, problems: list[Problem]) -> int:
    if call.console.json:
        call.console.print_document(
            {**_document(added), "ok": False, "written": False, "problems": [problem_document(its) for its in problems]}
        )
        return FAILED
    for its in problems:
        call.console.print_line(clean(its))
    found = format_count(len(problems), "problem")
    call.console.print_remark(f"runnerctl: found {found}; {added.path} was not written")
    return FAILED


def _report(call: Call, added: Added, registered: Registered) -> int:
    good = registered.state in ("ready", "paused", None)
    following = _list_next(added, registered)
    if call.console.json:
        more = {"ok": good, "written": True, "problems": [], "state": registered.state, "why": registered.why}
        call.console.print_document({**_document(added), **more, "next": following})
        return DONE if good else FAILED
    call.console.print_line(f"wrote {clean(added.path)}")
    call.console.print_fields(
        [
            ("Deployment", clean(added.name)),
            ("Entrypoint", clean(added.flow.entrypoint)),
            ("Directory", clean(added.flow.directory)),
            ("Interpreter", clean(added.flow.python or "run.python of the host: no venv is beside the file")),
            ("State", registered.state),
        ]
    )
    if registered.why is not None:
        call.console.print_remark(f"runnerctl: {registered.why}")
    for command in following:
        call.console.print_line(f"next: {clean(command)}")
    return DONE if good else FAILED


def _document(added: Added) -> dict[str, Json]:
    flow = added.flow
    return {
        "name": added.name,
        "file": added.path,
        "entrypoint": flow.entrypoint,
        "working_directory": flow.directory,
        "python": flow.python,
        "state": None,
        "why": None,
        "next": [],
    }


def _list_next(added: Added, registered: Registered) -> list[str]:
    name = shlex.quote(added.name)
    if registered.state in ("ready", "paused"):
        return [f"runnerctl run {name} --watch", f"runnerctl plan {name}"]
    if registered.state is None:
        return [registered.start] if registered.start is not None else []
    return [f"runnerctl status {name}", "runnerctl reload"]
