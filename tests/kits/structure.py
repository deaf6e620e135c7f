"""Reads the checkout for tests/unit/test_structure.py: tracked files, modules, and who imports whom."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "runnerd"


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """`module` imports `target` (dotted, as written); `lazy` inside a function, or for type checkers only."""

    module: str
    target: str
    line: int
    lazy: bool

    @property
    def place(self) -> str:
        return f"{self.module} line {self.line} imports {self.target}"


@functools.cache
def tracked_files() -> tuple[Path, ...]:
    """What git knows, where there is git; a source archive is taken whole."""
    git = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if git.returncode == 0:
        found = [ROOT / name for name in git.stdout.decode().split("\0") if name]
    else:
        found = [p for p in ROOT.rglob("*") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]
    return tuple(sorted(p for p in found if p.is_file() and not p.is_symlink()))


def tracked_texts() -> Iterator[tuple[str, str]]:
    for path in tracked_files():
        try:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module of runnerd by its dotted name, a package by the name of its directory."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


@functools.cache
def imports() -> tuple[Import, ...]:
    return tuple(found for name, tree in modules().items() for found in _imports_of(name, tree, lazy=False))


def _imports_of(name: str, tree: ast.AST, *, lazy: bool) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno, lazy)
        elif isinstance(node, ast.ImportFrom):
            # `from runnerd.cli import call` names a module, `from runnerd.model import Json` a name in one.
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                yield Import(name, dotted if dotted in modules() else str(node.module), node.lineno, lazy)
        inner = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        )
        yield from _imports_of(name, node, lazy=lazy or inner)


def top(dotted: str) -> str:
    """`config` of runnerd.config.units, `runnerd` of the package itself."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def closure(start: str) -> set[str]:
    """The modules of runnerd that are loaded with `start`: its eager imports, theirs, and the packages around them."""
    found: set[str] = set()
    left = [start]
    while left:
        module = left.pop()
        if module in found or module not in modules():
            continue
        found.add(module)
        left.append(module.rpartition(".")[0])
        left += [i.target for i in imports() if i.module == module and not i.lazy]
    return found


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
