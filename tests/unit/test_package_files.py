"""What is built has all that the checkout has."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.kits.checkout import ROOT

UNITS = ROOT / "packaging" / "systemd"


def test_every_package_is_in_what_is_built() -> None:
    """setuptools finds directories with an __init__.py; one without would be missing in the package alone."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert declared == {"find": {"include": ["runnerd*"]}}
    folders = {path.parent for path in ROOT.glob("runnerd/**/*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_every_package_that_is_imported_is_declared() -> None:
    """runnerd/programs/ is for the interpreters of flows."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = {re.split(r"[<>=]", requirement)[0].lower() for requirement in requirements}
    files = [path for path in ROOT.glob("runnerd/**/*.py") if path.parent.name != "programs"]
    imported = {name for path in files for name in imports_of(path)} - sys.stdlib_module_names - {"runnerd"}
    assert {{"yaml": "pyyaml", "daemon": "python-daemon"}.get(name, name) for name in imported} == declared


def imports_of(path: Path) -> Iterator[str]:
    """Yield the top-level packages that a module imports, also in its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module.partition(".")[0]


def test_every_manual_page_that_a_unit_names_is_there() -> None:
    named = {
        f"{name}.{section}"
        for unit in UNITS.iterdir()
        for name, section in re.findall(r"man:(runner[a-z.-]+)\((\d)\)", unit.read_text())
    }
    there = {page.name for page in (ROOT / "docs" / "man").iterdir()}
    assert named and named <= there


def test_every_unit_is_of_a_kind_that_the_package_installs() -> None:
    rules = (ROOT / "packaging" / "deb" / "rules").read_text()
    kinds = set(re.findall(r"packaging/systemd/\*\.([a-z]+)", rules))
    others = {"runnerd.sysusers", "runnerd.tmpfiles", "runnerd.catalog"}
    assert {unit.suffix[1:] for unit in UNITS.iterdir() if unit.name not in others} <= kinds
