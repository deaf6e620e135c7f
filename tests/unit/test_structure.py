"""What the code may look like: sizes, who may import whom, what tests may do, and what no file may mention."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.structure import (
    PACKAGE,
    ROOT,
    Import,
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
# Programs that travel as one text.
LONGER = {
    "runnerd/programs/inspect_flow.py": 440,
    "runnerd/programs/pull_git.py": 495,
    "runnerd/programs/warm_interpreter.py": 480,
}
FUNCTION_LINES = 60

# Folders of runnerd/, lowest first: each may import from the lines above its own and from its own folder.
LAYERS = (
    "core spawner programs files",
    "log prefect_api config",
    "system journal",
    "launch output processes",
    "deployments warm notices",
    "pools runs",
    "polling doctor",
    "control",
    "daemon cli",
)
PROGRAMS = {"programs"}  # texts for other interpreters
CLI_MAY_LOAD = {"runnerd", "cli", "control", "core", "system"}

LAYER_OF = {folder: layer for layer, folders in enumerate(LAYERS) for folder in folders.split()}


def report(found: list[str]) -> None:
    assert not found, "\n" + "\n".join(found)


# --- sizes --------------------------------------------------------------------------------------------------


def test_files_are_short() -> None:
    found = []
    for path in sorted(path for path in tracked_files() if path.suffix == ".py"):
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


def test_every_folder_has_its_layer() -> None:
    assert len(imports()) > 100  # or the tests below look at nothing
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(LAYER_OF)


def test_imports_point_one_way() -> None:
    """The modules beside the folders (the command lines and the demo) are above all of them."""
    found = []
    for one in imports():
        layer, target = LAYER_OF.get(top(one.module)), LAYER_OF.get(top(one.target))
        if target is None or layer is None or top(one.module) == top(one.target):
            continue
        if top(one.target) in PROGRAMS:
            found.append(f"{one.place}: no module imports that")
        elif target >= layer:
            found.append(f"{one.place}: {LAYERS[layer]} may not import {LAYERS[target]}")
    report(found)


def test_the_rooms_of_a_folder_do_not_import_each_other_in_a_circle() -> None:
    """control/http and control/routes, say; what stands beside them in control/ may be above and below them."""
    rooms = {room for name in modules() if len((room := folder_of(name)).split(".")) == 3}
    arrows = {(folder_of(one.module), folder_of(one.target)) for one in eager()}
    report(circles(rooms, {(a, b) for a, b in arrows if a in rooms and b in rooms}))


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    report(circles(set(modules()), {(one.module, one.target) for one in eager()}))


def eager() -> list[Import]:
    """A lazy import cannot fail at start."""
    return [one for one in imports() if not one.lazy and one.target in modules()]


def folder_of(name: str) -> str:
    """The folder a module stands in; a package stands in itself."""
    return name if (ROOT / name.replace(".", "/")).is_dir() else name.rpartition(".")[0]


def circles(rooms: set[str], arrows: set[tuple[str, str]]) -> list[str]:
    left = {room: {target for source, target in arrows if source == room != target} for room in rooms}
    while free := [room for room, targets in left.items() if not targets]:
        left = {room: targets - set(free) for room, targets in left.items() if room not in free}
    return [f"{room} is part of an import circle with {', '.join(sorted(targets))}" for room, targets in left.items()]


def test_the_client_loads_little() -> None:
    loaded = closure("runnerd.cli.__main__")
    found = [f"runnerctl loads {name} at start; import it where it is used" for name in loaded if heavy(name)]
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
            if top(one.module) in PROGRAMS
            and one.target.split(".")[0] not in sys.stdlib_module_names
            and not one.target.startswith("runnerd.programs.")  # texts that are passed together
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
        jumps = Path(name).is_relative_to("tests/unit")
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
