"""A pytest of its own, on one file, for the tests of what conftest.py files do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.kits.checkout import ROOT


def run_pytest(folder: Path, text: str, *, conftest: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests in `text`, in a folder that has nothing but that conftest."""
    shutil.copy(ROOT / conftest, folder / "conftest.py")
    (folder / "test_inner.py").write_text(text)
    settings = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={folder}", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *settings, "test_inner.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
