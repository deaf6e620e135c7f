"""runnerctl init: write runnerd.yaml from what is found on this host: the API, an interpreter, the user of flows."""

from __future__ import annotations

import os
import pwd
import shlex
import tempfile
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import NamedTuple

from runnerd.cli.call import DONE, FAILED, Call, UsageError
from runnerd.cli.host_facts import Api, Interpreter, can_reach, find_api, find_homes, find_interpreters
from runnerd.cli.judging import read_judging
from runnerd.cli.new_files import Exists, beginning, finish, keep_old, make_directory
from runnerd.cli.text import clean, format_count
from runnerd.cli.verbs.config import find_config
from runnerd.control.client import Json
from runnerd.core.errors import RunnerdError
from runnerd.core.place import Problem, problem_document
from runnerd.files.regular import read_regular

PACKAGED = "/usr/share/runnerd/runnerd.yaml"  # what the package installs as /etc/runnerd/runnerd.yaml
_MAIN, _KEY, _AUTH = "runnerd.yaml", "api-key", "api-auth"
_MAX_BYTES = 2**20
_FLOW_USER = "runnerd-flow"  # of the package
_NO_API = (
    "cannot find the URL of Prefect's API: PREFECT_API_URL is not set, no Prefect profile of yours has it, and no"
    " server answers on 127.0.0.1:4200; name it with --api-url http://HOST:4200/api, or have a private server with"
    " --api-url embedded"
)


class Found(NamedTuple):
    """What the file is written from; `chosen` is the interpreter of flows, None where no reachable one has Prefect."""

    api: Api
    interpreters: list[Interpreter]
    chosen: Interpreter | None
    user: str | None


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="DIR", help="write into this directory (default: that of the host, or your own)"
    )
    parser.add_argument(
        "--api-url",
        metavar="URL",
        help="the API's URL, or embedded (default: PREFECT_API_URL, else your Prefect profile's, else a server here)",
    )
    parser.add_argument("--force", action="store_true", help="replace a file with settings, and keep it as .old")


def run(call: Call) -> int:
    directory = choose_directory(call, os.environ)
    path = os.path.join(directory, _MAIN)
    is_there = os.path.lexists(path)
    if is_there and not (call.args.force or has_no_settings(path)):
        raise Exists(_describe_existing(path))
    found = find_all(call, os.environ, directory)
    if not call.args.force:
        _require_no_other_key(directory, found)
    make_directory(directory)
    make_directory(os.path.join(directory, "conf.d"))
    text = make_text(directory, found)
    problems = _check_text(call, text, path)
    kept = [] if problems else _write(directory, text, found, replace=is_there)
    return _report(call, path, found, problems, kept)


def has_no_settings(path: str, *, packaged: str = PACKAGED) -> bool:
    """Return whether this is the package's own file still, or one of comments only: nothing of anybody is lost."""
    import yaml  # not at the top, because it is slow to load

    if os.path.islink(path):
        return False
    try:
        content = read_regular(path, max_bytes=_MAX_BYTES)
        return content == _read(packaged) or yaml.safe_load(content) in (None, {})
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return False


def _read(path: str) -> bytes | None:
    """Read a file; None where there is none that can be read."""
    try:
        return read_regular(path, max_bytes=_MAX_BYTES)
    except OSError:
        return None


def _require_no_other_key(directory: str, found: Found) -> None:
    """Raise Exists where the file that the key would be written to has another."""
    secret = _secret_of(found.api)
    path = os.path.join(directory, secret[0]) if secret is not None else ""
    if secret is not None and os.path.lexists(path) and _read(path) != f"{secret[1]}\n".encode():
        raise Exists(
            f"cannot write {path}: it exists already, with another content than that of {found.api.source};"
            f" runnerctl init --force replaces it, and keeps it as {path}.old"
        )


def choose_directory(call: Call, environ: Mapping[str, str]) -> str:
    """Choose the directory of --config, else that of the host or the user. Raises UsageError."""
    if call.args.config == "":
        raise UsageError("cannot use --config: the path is empty; leave the option out for the default")
    return os.path.abspath(call.args.config or find_config(environ, root=os.geteuid() == 0))


def find_all(call: Call, environ: Mapping[str, str], directory: str) -> Found:
    """Find everything that the file needs. Raises RunnerdError without an API."""
    from runnerd.config.settings import read_api_url  # not at the top, because it is slow to load

    root = os.geteuid() == 0
    homes = find_homes(environ, root=root)
    given = call.args.api_url
    api = Api(given, "--api-url") if given is not None else find_api(environ, homes=homes)
    if api is None:
        raise RunnerdError(_NO_API)
    try:
        api = api._replace(url=read_api_url(api.url))
    except ValueError as error:
        raise RunnerdError(f"cannot use the API's URL of {api.source}: {error}") from None
    known = read_judging(call.client, directory).defaults.flow_user
    user = _choose_user(environ) if root and known is None else None
    interpreters = find_interpreters(environ, homes=homes)
    runs_as = user or known
    chosen = next((one for one in interpreters if can_reach(one.python, runs_as)), None)
    return Found(api, interpreters, chosen, user)


def _choose_user(environ: Mapping[str, str]) -> str | None:
    """Choose as whom a root daemon starts flows: the package's user, else the one who has called sudo."""
    for name in (_FLOW_USER, environ.get("SUDO_USER")):
        try:
            if name and pwd.getpwnam(name).pw_uid != 0:
                return name
        except KeyError:
            continue
    return None


def make_text(directory: str, found: Found) -> str:
    """Make the text of runnerd.yaml."""
    api: dict[str, Json] = {"url": found.api.url}
    secret = _secret_of(found.api)
    if secret is not None:
        api["key_file" if secret[0] == _KEY else "auth_string_file"] = os.path.join(directory, secret[0])
    run: dict[str, Json] = {}
    if found.user is not None:
        run["user"] = found.user
    if found.chosen is not None:
        run["python"] = found.chosen.python
    sections = [
        "# Configuration of the host, written by runnerctl init. See runnerd.yaml(5).",
        "# `runnerctl config check` checks it; `runnerctl config schema` prints its JSON Schema.",
        "",
        f"# From {clean(found.api.source)}.",
        dump({"api": api}),
    ]
    if run:
        sections += ["# Defaults of the run: section of every deployment and pool.", dump({"run": run})]
    sections += ["# limits:", "#   runs: 10        # concurrent flow runs on this host"]
    return "\n".join(sections) + "\n"


def dump(value: Json) -> str:
    """Write a value as YAML that people read: block style, in the order given."""
    import yaml  # not at the top, because it is slow to load

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False, width=1000)
    return text


def _secret_of(api: Api) -> tuple[str, str] | None:
    """Return the name and content of the file with the API's key, or with its user and password."""
    if api.key is not None:
        return _KEY, api.key
    return (_AUTH, api.auth_string) if api.auth_string is not None else None


def _write(directory: str, text: str, found: Found, *, replace: bool) -> list[str]:
    """Write the file of the key, then the configuration; return the names under which what they replace is kept.

    Raises RunnerdError.
    """
    path, secret = os.path.join(directory, _MAIN), _secret_of(found.api)
    kept = []
    if secret is not None:
        of_key, content = os.path.join(directory, secret[0]), f"{secret[1]}\n"
        with beginning(of_key, content, secret=True) as draft:
            kept += keep_old(of_key) if _read(of_key) != content.encode() else []
            finish(draft, of_key, replace=True)
    with beginning(path, text) as draft:
        replaced = keep_old(path) if replace else []
        try:
            finish(draft, path, replace=replace)
        except Exists:
            raise Exists(_describe_existing(path)) from None
    return [*kept, *replaced]


def _check_text(call: Call, text: str, path: str) -> list[Problem]:
    """Check the text by itself, in a directory of its own: what it replaces must not count."""
    with tempfile.TemporaryDirectory(prefix="runnerctl-") as folder:
        draft = os.path.join(folder, _MAIN)
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
        return check_draft(call, draft, path)


def check_draft(call: Call, draft: str, path: str) -> list[Problem]:
    """Check a file that will be at `path`, as `runnerctl config check` does; messages name `path`."""
    from dataclasses import replace

    from runnerd.config import check

    folder = os.path.dirname(path)
    directory = os.path.dirname(folder) if os.path.basename(folder) == "conf.d" else folder
    _, problems = check(draft, defaults=read_judging(call.client, directory).defaults)
    named = []
    for its in problems:
        place = its.place
        at = replace(place, file=path) if place is not None and place.file == draft else place
        named.append(replace(its, place=at, message=its.message.replace(draft, path)))
    return named


def _describe_existing(path: str) -> str:
    return f"cannot write {path}: it exists already; runnerctl init --force replaces it, and keeps it as {path}.old"


def _remarks(found: Found) -> list[str]:
    remarks = []
    if found.api.source == "--api-url" and found.api.url == "embedded":
        remarks.append("the embedded server needs Prefect 3 beside runnerd; see runnerd.yaml(5), api.url")
    if found.chosen is None and found.interpreters:
        closed = ", ".join(one.python for one in found.interpreters)
        remarks.append(f"no interpreter with Prefect can be run by the user of flows ({closed}); set run.python")
    elif found.chosen is None:
        remarks.append(
            "no interpreter with Prefect was found; make one (python3 -m venv /opt/flows/venv, and pip install prefect"
            " there) and set run.python, or have a venv beside each flow, which runnerctl add finds"
        )
    return remarks


def _report(call: Call, path: str, found: Found, problems: list[Problem], kept: list[str]) -> int:
    console, remarks = call.console, _remarks(found)
    named = f"--config {shlex.quote(os.path.dirname(path))} " if call.args.config is not None else ""
    following = [f"runnerctl add {named}FILE.py:FLOW"]
    if console.json:
        document = {
            "ok": not problems,
            "file": path,
            "written": not problems,
            "kept": kept,
            "api_url": found.api.url,
            "api_url_from": found.api.source,
            "user": found.user,
            "python": found.chosen.python if found.chosen else None,
            "interpreters": [{"python": one.python, "prefect": one.version} for one in found.interpreters],
            "problems": [problem_document(its) for its in problems],
            "remarks": remarks,
            "next": following,
        }
        console.print_document(document)
        return FAILED if problems else DONE
    for its in problems:
        console.print_line(clean(its))
    if problems:
        console.print_remark(f"runnerctl: found {format_count(len(problems), 'problem')}; {path} was not written")
        return FAILED
    console.print_line(f"wrote {clean(path)}")
    for old in kept:
        console.print_line(f"kept the file that was there as {clean(old)}")
    chosen = f"{found.chosen.python} (Prefect {found.chosen.version or 'unknown'})" if found.chosen else None
    console.print_fields(
        [
            ("API", f"{clean(found.api.url)}, from {clean(found.api.source)}"),
            ("User", clean(found.user) if found.user else None),
            ("Interpreter", clean(chosen) if chosen else None),
        ]
    )
    for remark in remarks:
        console.print_remark(f"runnerctl: {remark}")
    console.print_line(f"next: {clean(following[0])}")
    return DONE
