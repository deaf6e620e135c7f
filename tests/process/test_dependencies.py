"""What the inspection program reports that its answer depends on, without Prefect."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from runnerd.deployments.dependencies import read_stamp
from tests.kits.inspecting import inspect, write_stand_in


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    return write_stand_in(tmp_path)


def test_what_an_answer_depends_on(stand_in: Path) -> None:
    """Everything imported but the standard library and installed packages, and the folders of those."""
    packages = stand_in / "lib" / "site-packages"
    (packages / "__pycache__").mkdir(parents=True)
    (packages / "installed.py").touch()
    (stand_in / "limits.py").write_text("import json")
    flow = f"import sys; sys.path.append({str(packages)!r}); import installed, limits; sys.modules['odd'] = 3"
    (stand_in / "flow.py").write_text(flow)
    found = inspect(sys.executable, stand_in, ["flow.py:f"]).good("flow.py:f").dependencies or {}
    own = {str(stand_in / name) for name in ("flow.py", "limits.py")} | {str(packages)}
    assert own <= found.keys() and os.path.abspath(sys.executable) in found
    assert not [path for path in found if path.endswith(("installed.py", "json/__init__.py", "contextlib.py"))]
    assert {path: read_stamp(path) for path in own} == {path: found[path] for path in own}


def test_what_changes_while_it_is_inspected_counts_as_changed(stand_in: Path) -> None:
    (stand_in / "flow.py").write_text("open('limits.py', 'w').close(); import limits")
    found = inspect(sys.executable, stand_in, ["flow.py:f"]).good("flow.py:f").dependencies or {}
    assert found[str(stand_in / "limits.py")] != read_stamp(str(stand_in / "limits.py"))
