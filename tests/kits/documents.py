"""The documents of this checkout, held to the programs: each check returns its findings, one line each."""

from __future__ import annotations

import contextlib
import functools
import getpass
import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from runnerd.__main__ import _build_parser as runnerd_parser
from runnerd.cli.__main__ import _build_parser as runnerctl_parser
from runnerd.config import HostDefaults
from runnerd.core.errors import ConfigError
from runnerd.system.paths import resolve_paths
from tests.kits.checkout import ROOT
from tests.kits.config import DEFAULTS, MAIN, ConfigDir

SCHEMA = json.loads((ROOT / "runnerd" / "config" / "schema.json").read_text())
UNITS = ROOT / "packaging" / "systemd"
OPTION = re.compile(r"--[a-z][a-z-]*")
SPAN = re.compile(r"`([^`\n]+)`")
KEY = re.compile(r"(?P<path>[a-z_]+(?:\[\])?(?:\.[a-z_]+(?:\[\])?)*)(?:: (?P<value>\S+))?")
OF_A_DROP_IN = re.compile(r"^(?:deployments|pools):", re.M)  # any other block is a runnerd.yaml
SYSTEMCTL = {"start", "stop", "restart", "reload", "status", "kill", "edit", "enable", "disable", "set-property"}
_REACHABLE = HostDefaults(hostname=DEFAULTS.hostname, python=DEFAULTS.python, api_url="http://127.0.0.1:4200/api")


def documents() -> tuple[Path, ...]:
    """README, HACKING and every text of docs/."""
    return (ROOT / "README.md", ROOT / "HACKING.md", *sorted((ROOT / "docs").rglob("*.md")))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands(text: str) -> list[str]:
    """What is typed in the console blocks: lines after `$` or `#`; all other lines are what is printed."""
    return [
        line[2:] for block in blocks(text, "console") for line in block.splitlines() if line.startswith(("$ ", "# "))
    ]


def spans(text: str) -> list[str]:
    """The inline code outside of blocks."""
    return SPAN.findall(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def manual_commands(page: str) -> list[str]:
    """What is typed in the examples of a manual page."""
    return [line.replace(r"\(dq", '"') for line in re.findall(r"^\.Dl [$#] (.*)$", page, re.M)]


# --- configuration --------------------------------------------------------------------------------------------


def of_this_host(text: str, directory: Path) -> str:
    """The same with a user, interpreters and a directory that exist here."""
    text = re.sub(r"/opt/\w+/venv/bin/python", sys.executable, text).replace("/opt/etl", str(directory))
    return text.replace("user: etl", f"user: {getpass.getuser()}")


def yaml_findings(text: str, directory: Path) -> list[str]:
    """What the loader says of one block, in `directory`, which is made."""
    etc = ConfigDir(directory, main=MAIN)
    if OF_A_DROP_IN.search(text):
        etc.write("conf.d/10-block.yaml", of_this_host(text, directory))
    else:
        etc.write("runnerd.yaml", of_this_host(text, directory))
    try:
        return etc.words(etc.load(defaults=_REACHABLE).problems)
    except ConfigError as error:
        return etc.words(error.problems)


def key_finding(span: str) -> str | None:
    """What is wrong with a key as `pools[].run.user`, or with a key and its value as `stop.then: crash`."""
    match = KEY.fullmatch(span)
    node = _node_of(match["path"]) if match else None
    if match is None or node is None:
        return "no such key"
    if match["value"] is None:
        return None
    validator = jsonschema.Draft7Validator({**node, "definitions": SCHEMA["definitions"]})
    return None if validator.is_valid(yaml.safe_load(match["value"])) else "a value that it does not take"


def _node_of(path: str) -> dict[str, Any] | None:
    """The schema of the key at this path."""
    node: Any = SCHEMA
    for step in path.split("."):
        node = _within(node).get("properties", {}).get(step.removesuffix("[]"))
        if node is None:
            return None
        if step.endswith("[]"):
            node = _within(node).get("items")
    return _within(node)


def _within(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        found: dict[str, Any] = SCHEMA["definitions"][node["$ref"].rpartition("/")[2]]
        return found
    return node


# --- commands -------------------------------------------------------------------------------------------------


def _printed(parse: Callable[[], object]) -> tuple[int | str | None, str]:
    """The exit status of a parser that exits (None without one), and what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            parse()
        except SystemExit as exit_:
            return exit_.code, out.getvalue()
    return None, out.getvalue()


@functools.cache
def options_of(words: tuple[str, ...]) -> frozenset[str] | None:
    """The options of `runnerctl WORDS`, from its help; None where there is no such verb, or no such command of it."""
    status, text = _printed(lambda: runnerctl_parser([*words, "--help"]).parse_args([*words, "--help"]))
    known = status == 0 and (not words or f"runnerctl {' '.join(words)}" in " ".join(text.split()))
    return frozenset(OPTION.findall(text)) | {"--json", "--socket", "--version"} if known else None


def synopsis_finding(span: str) -> str | None:
    """What is wrong with the verb, the command or an option of a span as `runnerctl run DEPLOYMENT [--watch]`."""
    words = re.sub(r"[\[\]|]|\.\.\.", " ", span).split()[1:]
    names = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
    known = options_of(tuple(names[: 2 if names[:1] in (["pool"], ["queue"]) else 1]))
    if known is None:
        return "no such verb or command"
    unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - known
    return f"no such option: {', '.join(sorted(unknown))}" if unknown else None


def command_finding(line: str) -> str | None:
    """What is wrong with one typed line; None as well for a program of others."""
    words = shlex.split(line.partition(" | ")[0], comments=True)
    program = Path(words[0]).name
    if program in ("runnerctl", "runnerd"):
        parser = runnerctl_parser(words[1:]) if program == "runnerctl" else runnerd_parser()
        status, text = _printed(lambda: parser.parse_args(words[1:]))
        return None if status in (None, 0) else text.strip()
    if program == "systemctl":
        return systemctl_finding(words[1:])
    if program == "curl":
        return _curl_finding(words)
    if program.startswith("python") and words[1] == "-m" and words[2] != "venv":
        return None if _is_module(words[2]) else f"no module {words[2]}"
    return None


def systemctl_finding(words: list[str]) -> str | None:
    verb, *rest = words = [word for word in words if not word.startswith("-")]
    if verb not in SYSTEMCTL:
        return f"no verb of systemctl: {verb}"
    units = [word for word in rest if word.startswith("runnerd")]
    return next((finding for unit in units if (finding := unit_finding(unit))), None)


def unit_finding(name: str) -> str | None:
    full = name if "." in name else f"{name}.service"
    return None if (UNITS / full).is_file() else f"no unit {full}"


def _curl_finding(words: list[str]) -> str | None:
    path = re.sub(r"^http://(?:runnerd|127\.0\.0\.1:\d+)", "", words[-1]).partition("?")[0]
    route = "/".join("*" if part.isupper() or "%2F" in part else part for part in path.split("/"))
    sources = (ROOT / "runnerd" / "control" / "routes").glob("*.py")
    return None if any(f'"{route}"' in source.read_text() for source in sources) else f"no route {route}"


def _is_module(dotted: str) -> bool:
    path = ROOT.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


# --- files, units, targets ------------------------------------------------------------------------------------


def unit_findings(text: str) -> list[str]:
    """The units of ours that a text names and that do not exist."""
    found = re.findall(r"(?<![\w/.-])runnerd[a-z-]*\.(?:service|socket|path|target)(?![\w.])", text)
    return [finding for name in dict.fromkeys(found) if (finding := unit_finding(name))]


def _installed_paths() -> set[str]:
    """The absolute paths that the programs use, or that the package installs."""
    paths = resolve_paths(environ={}, root=True)
    return {
        *(paths.config, f"{paths.config}/runnerd.yaml", f"{paths.config}/conf.d", f"{paths.config}/conf.d/*.yaml"),
        *(paths.runtime, paths.control_socket, paths.spawner_dir, paths.spawner_socket),
        *(f"{paths.state}-sources", f"{paths.state}/sources.json"),
        *(paths.state, f"{paths.state}/journal.db", paths.log, f"{paths.log}/runs"),
        *("/usr/share/doc/runnerd/examples", "/usr/lib/runnerd/runnerd-spawner"),
    }


def path_findings(text: str, chosen: Iterable[str]) -> list[str]:
    """The paths of ours that a text names and that do not exist; `chosen` are names that an administrator chooses."""
    places = r"/(?:etc|run|var/lib|var/log|usr/share/doc|usr/lib)/runnerd[\w/.*-]*"
    known = _installed_paths() | set(chosen)
    absolute = {path.rstrip("./") for path in re.findall(places, text)}
    drop_in = re.compile(r"/etc/runnerd/conf\.d/\d\d-[a-z]+\.yaml")
    found = [path for path in sorted(absolute) if path not in known and not drop_in.fullmatch(path)]
    inside = {span for span in spans(text) if re.match(r"(?:docs|etc/runnerd|packaging|runnerd|tests)/", span)}
    return [f"no path {path}" for path in [*found, *sorted(one for one in inside if not list(ROOT.glob(one)))]]


def make_findings(text: str) -> list[str]:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = re.findall(r"(?:^|`|\$ )make ([a-z][\w-]*)", text, re.M)
    return [f"no make target {target}" for target in named if target not in targets]


def link_findings(document: Path, text: str) -> list[str]:
    """The relative links that lead nowhere, and the fragments without a heading."""
    found = []
    for target, fragment in re.findall(r"\]\(([^)#\s]*)(#[^)\s]*)?\)", text):
        path = document.parent.joinpath(target) if target else document
        if re.match(r"[a-z]+:", target):
            continue
        if not path.exists():
            found.append(f"no file {target}")
        elif fragment and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", text if path == document else path.read_text(), re.M)
            slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            found += [] if fragment[1:] in slugs else [f"no heading {target}{fragment}"]
    return found


# --- the map --------------------------------------------------------------------------------------------------

Row = tuple[str, str, tuple[str, ...]]


def tree(layers: Sequence[str]) -> list[Row]:
    """(layer, folder, modules) of each folder of runnerd/; `layers` are the top folders, lowest first."""
    package = ROOT / "runnerd"
    layer_of = {folder: str(number) for number, layer in enumerate(layers, 1) for folder in layer.split()}
    found: dict[str, list[str]] = {}
    for path in sorted(package.rglob("*.py")):
        if path.parent != package:
            names = found.setdefault(path.parent.relative_to(package).as_posix(), [])
            names += [] if path.stem.startswith("__") else [path.stem]
    return [(layer_of[folder.split("/")[0]], f"{folder}/", tuple(names)) for folder, names in found.items()]


def map_rows(text: str) -> list[Row]:
    """The rows of the map in HACKING.md, a folder each; what a folder is for may not be empty."""
    rows = re.findall(r"^\| (\d) \| `([\w/]+/)` \| [^|]+ \| (.*?) \|$", text, re.M)
    return [(layer, folder, tuple(modules.split())) for layer, folder, modules in rows]


def map_findings(text: str, layers: Sequence[str]) -> list[str]:
    """What the map has and the tree has not, and the other way."""
    wanted, listed = tree(layers), map_rows(text)
    found = [f"the tree has {' '.join([layer, folder, *names])}" for layer, folder, names in wanted
             if (layer, folder, names) not in listed]  # fmt: skip
    found += [f"the map has {' '.join([layer, folder, *names])}" for layer, folder, names in listed
              if (layer, folder, names) not in wanted]  # fmt: skip
    found += [f"twice in the map: {row[1]}" for row in set(listed) if listed.count(row) > 1]
    if [layer for layer, _, _ in listed] != sorted(layer for layer, _, _ in listed):
        found.append("the lowest layer comes first")
    return found
