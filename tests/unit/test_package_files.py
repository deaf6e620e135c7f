"""What is built has all that the checkout has."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (apt install systemd)")
def test_systemd_finds_nothing_wrong_in_the_units(tmp_path: Path) -> None:
    """On a host that has the programs of the package and of Debian, and no /opt/prefect."""
    units = tmp_path / "usr" / "lib" / "systemd" / "system"
    units.mkdir(parents=True)
    for unit in [*UNITS.iterdir(), *Path("/usr/lib/systemd/system").glob("*.target")]:
        shutil.copy(unit, units)
    for program in ("usr/bin/runnerd", "usr/bin/runnerctl", "usr/lib/runnerd/runnerd-spawner", "usr/bin/env"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", tmp_path / program)
    (tmp_path / "bin").mkdir()
    for program in ("sh", "sleep"):
        shutil.copy("/bin/true", tmp_path / "bin" / program)
    ours = sorted(unit.name for unit in UNITS.iterdir() if unit.suffix in (".service", ".socket", ".path", ".target"))
    argv = ["systemd-analyze", "verify", "--man=no", f"--root={tmp_path}", *ours]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_a_build_that_lacks_packages_says_how_to_install_them(tmp_path: Path) -> None:
    """In one line that can be copied."""
    fake = tmp_path / "dpkg-query"
    fake.write_text("#!/bin/sh\ncase $* in *git*) echo installed ;; esac\n")
    fake.chmod(0o755)
    argv = [str(ROOT / "packaging" / "deb" / "build.sh"), "--lintian"]
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environ, check=False)
    assert done.returncode == 1
    packages = "dpkg-dev debhelper dh-python pybuild-plugin-pyproject python3 python3-setuptools lintian"
    assert done.stderr.splitlines() == [
        "cannot build the package: 7 packages are missing; as root:",
        f"apt-get install -y --no-install-recommends {packages}",
    ]
