"""The Pythons of this machine under which flows may run, for tests of the programs that runnerd has them run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

MINORS = (9, 10, 11, 12, 13, 14)  # of Python 3


def find_python(minor: int) -> str | None:
    """One of pyenv, the latest patch, or else one in PATH that is no shim of pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = sorted(root.glob(f"versions/3.{minor}.*/bin/python3.{minor}"), key=lambda path: _patch(path.parts[-3]))
    if found:
        return str(found[-1])
    other = shutil.which(f"python3.{minor}")
    return None if other is None or Path(other).parent.name == "shims" else other


def _patch(version: str) -> int:
    digits = version.rpartition(".")[2]
    return int(digits) if digits.isdigit() else -1  # 3.14.0rc1, 3.13.0t


def pythons() -> list[Any]:
    """A parameter for each, its path; the tests of one that is missing are skipped with that reason."""
    found = {minor: find_python(minor) for minor in MINORS}
    return [
        pytest.param(path or "", id=f"3.{minor}", marks=[] if path else pytest.mark.skip(reason=_missing(minor)))
        for minor, path in found.items()
    ]


def _missing(minor: int) -> str:
    return f"there is no Python 3.{minor} on this machine, neither of pyenv nor in PATH"
