"""What the code may look like: sizes, who may import whom, what tests may do, and what no file may mention."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structure import (
    PACKAGE,
    ROOT,
    closure,
    functions,
    imports,
    lines_of,
    modules,
    top,
    tracked_files,
    tracked_texts,
)

FILE_LINES = 330
# nouns that do nothing; a program that travels as one text
LONGER = {"runnerd/model.py": 400, "runnerd/inspect_flow.py": 340}
FUNCTION_LINES = 60

# Each layer may import from those above it in this table, and from its own unless it is "edges".
LAYERS = {
    "pure": "alerts backoff codec directories errors examine journalfile jsonwords launch limits machine metrics model"
    " onoffer paths pulse regular templates jobs joblookups jobschema jobvariables poollaunch words workpool",
    "edges": "config inotify inspection journal journald logs outputfile prefect_api spawner systemd",
    "engine": "access asking cancelling claiming doctor drain dropping embedded errand forwarding hooks inspector"
    " keeping lateness launcher link poller refresher registrar registry reloading reporting run spawnerat summary"
    " supervisor tailing tidying tools upkeep usage views warm workpools",
    "control": "control",
    "top": "__main__ daemon daemonize demo host init service",
}
CLI_MAY_IMPORT = {"cli", "control", "errors", "examine", "model", "paths", "words", "config"}
CLI_MAY_LOAD = {"runnerd", "cli", "control", "errors", "model", "paths", "words", "machine"}
ELSEWHERE = {"inspect_flow", "install_worker", "run_hooks"}  # programs for flows' own interpreters
ALONE = {"cli"} | ELSEWHERE  # not of the layers: the client program, those that run elsewhere

LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names.split()}


def report(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


# --- sizes --------------------------------------------------------------------------------------------------


def test_files_are_short() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name, count = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8").count("\n")
        if count > LONGER.get(name, FILE_LINES):
            found.append(f"{name} has {count} lines; split it by duty (at most {FILE_LINES})")
    report(found)


def test_functions_are_short() -> None:
    report(
        [
            f"{name}.{function.name} has {lines_of(function)} lines (at most {FUNCTION_LINES})"
            for name, tree in modules().items()
            for function in functions(tree)
            if lines_of(function) > FUNCTION_LINES
        ]
    )


# --- layers -------------------------------------------------------------------------------------------------


def test_every_module_has_its_place() -> None:
    assert len(imports()) > 100  # or the tests below look at nothing
    known = set(LAYER_OF) | ALONE
    names = {top(name) for name in modules()} - {"runnerd"}
    report([f"place runnerd/{name} in a layer of LAYERS in {Path(__file__).name}" for name in sorted(names - known)])


def test_imports_point_one_way() -> None:
    order = list(LAYERS)
    found = []
    for one in imports():
        layer, target = LAYER_OF.get(top(one.module)), LAYER_OF.get(top(one.target))
        if not one.target.startswith("runnerd.") or layer is None or top(one.module) == top(one.target):
            continue
        if top(one.target) in ALONE:
            found.append(f"{one.place}: nobody imports that")
        elif target is not None and order.index(target) > order.index(layer):
            found.append(f"{one.place}: {layer} may not import {target}")
        elif layer == target == "edges":
            found.append(f"{one.place}: edges do not import each other")
    report(found)


def test_no_import_cycles() -> None:
    """Eager imports only: a lazy one cannot fail at start."""
    edges = {name: {i.target for i in imports() if i.module == name and not i.lazy} for name in modules()}
    left = {name: {t for t in targets if t in modules() and t != name} for name, targets in edges.items()}
    while free := [name for name, targets in left.items() if not targets]:
        left = {name: targets - set(free) for name, targets in left.items() if name not in free}
    report([f"{name} is part of an import cycle with {', '.join(sorted(targets))}" for name, targets in left.items()])


def test_the_client_loads_little() -> None:
    found = [
        f"{one.place}: runnerctl may not"
        for one in imports()
        if top(one.module) == "cli" and one.target.startswith("runnerd.") and top(one.target) not in CLI_MAY_IMPORT
    ]
    loaded = closure("runnerd.cli.__main__")
    found += [f"runnerctl loads {name} at start; import it where it is used" for name in loaded if heavy(name)]
    found += [
        f"{one.place}: runnerctl must answer at once, so only the standard library"
        for one in imports()
        if one.module in loaded and not one.lazy and not standard(one.target)
    ]
    report(found)


def heavy(name: str) -> bool:
    return top(name) not in CLI_MAY_LOAD


def test_the_spawner_is_standard_library_only() -> None:
    loaded = closure("runnerd.spawner.__main__")
    assert len(loaded) > 3
    found = [f"runnerd-spawner loads {name}" for name in loaded if top(name) not in {"runnerd", "spawner"}]
    found += [
        f"{one.place}: not in the standard library"
        for one in imports()
        if one.module in loaded and not standard(one.target)
    ]
    report(found)


def test_the_inspecting_program_is_standard_library_only() -> None:
    report(
        [
            f"{one.place}: it runs under interpreters that have no runnerd"
            for one in imports()
            if top(one.module) in ELSEWHERE and one.target.split(".")[0] not in sys.stdlib_module_names
        ]
    )


def standard(target: str) -> bool:
    return target.split(".")[0] in {"runnerd", *sys.stdlib_module_names}


# --- habits -------------------------------------------------------------------------------------------------


def test_no_exception_is_swallowed_whole() -> None:
    found = []
    for name, tree in modules().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler) or not isinstance(node.body[0], ast.Pass | ast.Continue):
                continue
            caught = ast.unparse(node.type) if node.type else ""
            if caught in {"", "Exception", "BaseException"}:
                found.append(f"{name} line {node.lineno}: except {caught}: and then nothing")
    report(found)


def parsed_tests() -> Iterator[tuple[str, str, ast.Module]]:
    for path in tracked_files():
        if path.suffix == ".py" and ROOT / "tests" in path.parents:
            text = path.read_text(encoding="utf-8")
            yield str(path.relative_to(ROOT)), text, ast.parse(text)


def test_tests_do_not_patch() -> None:
    found = []
    for name, _, tree in parsed_tests():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                if any(part == "mock" for each in names for part in each.split(".")):
                    found.append(f"{name} line {node.lineno}: a mock; use a fake or the real thing")
            elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("monkeypatch.setattr"):
                found.append(f"{name} line {node.lineno}: monkeypatch.setattr; pass it in instead")
    report(found)


def test_tests_wait_for_conditions() -> None:
    """Long sleeps are for a clock that jumps, and for programs that are started to be ended."""
    found = []
    for name, _, tree in parsed_tests():
        jumps = any("jumploop" in ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
        if not Path(name).name.startswith(("test_", "conftest")):
            continue
        for node in ast.walk(tree):
            slept = slept_s(node)
            if slept is not None and slept[1] > 0.5 and not (jumps and slept[0] == "asyncio.sleep"):
                found.append(f"{name} line {node.lineno}: {slept[0]}({slept[1]:g}); wait for a condition")
    report(found)


def slept_s(node: ast.AST) -> tuple[str, float] | None:
    if not isinstance(node, ast.Call) or not node.args:
        return None
    called, first = ast.unparse(node.func), node.args[0]
    if called in {"time.sleep", "asyncio.sleep", "sleep"} and isinstance(first, ast.Constant):
        return called, float(first.value)
    return None


# --- what no file may mention -------------------------------------------------------------------------------


def forbidden_words() -> list[tuple[str, re.Pattern[str]]]:
    start = r"(?<![\w./-])"
    shared = {Path("/"), Path("/tmp"), Path("/var/tmp"), Path("/home"), Path("/opt"), Path("/srv"), Path("/usr/src")}
    here = {ROOT, ROOT.parent, Path.home()} - shared - {Path("/root"), Path("/nonexistent")}
    return [
        *(("this checkout's place", re.compile(rf"{start}{re.escape(str(p))}(?![\w.-])")) for p in sorted(here)),
        ("a package registry", re.compile(r"\bpypi[.](?:org|python)|\bpythonhosted[.]")),
        ("a package registry", re.compile(r"--(?:extra-)?index[-]url|--find[-]links|file:[/]{3}")),
    ]


def line_of(text: str, hit: re.Match[str]) -> int:
    return text.count("\n", 0, hit.start()) + 1


@pytest.mark.parametrize(("why", "pattern"), forbidden_words())
def test_no_file_mentions(why: str, pattern: re.Pattern[str]) -> None:
    report(
        [
            f"{name} line {line_of(text, hit)}: {hit.group()!r} is {why}"
            for name, text in tracked_texts()
            for hit in pattern.finditer(text)
        ]
    )


def test_no_path_leaves_the_checkout() -> None:
    """Tests may spell such paths, to see them refused."""
    report(
        [
            f"{name} line {line_of(text, hit)}: {hit.group()} leaves the checkout"
            for name, text in tracked_texts()
            if not name.startswith("tests/")
            for hit in re.finditer(r"(?:\.\./)+", text)
            if len(hit.group()) // 3 >= len(Path(name).parts)
        ]
    )


def test_links_between_documents_lead_somewhere() -> None:
    report(
        [
            f"{name}: there is no {target}"
            for name, text in tracked_texts()
            if name.endswith(".md")
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
            if not re.match(r"[a-z]+:", target) and not (ROOT / name).parent.joinpath(target).exists()
        ]
    )


def test_documented_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    assert {"demo", "test", "check", "bench", "clean", "help"} <= targets
    report(
        [
            f"{name}: `make {target}` is not in the Makefile"
            for name, text in tracked_texts()
            if name.endswith(".md") or name == ".ci/run"
            for target in re.findall(r"(?:^|`|\$ )make ([a-z][\w-]*)", text, re.MULTILINE)
            if target not in targets
        ]
    )
