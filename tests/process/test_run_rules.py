"""tests/conftest.py itself: a hang fails with its place, and a process left behind fails the run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

from tests.kits.inner_pytest import run_pytest


def run_rules(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    return run_pytest(folder, text, conftest=Path("tests/conftest.py"))


@pytest.mark.parametrize(
    "hang",
    [
        "threading.Event().wait()",
        "asyncio.run(asyncio.Event().wait())",
        "subprocess.run(['sleep', '1000'])",
    ],
)
def test_a_hang_fails_and_the_next_test_runs(tmp_path: Path, hang: str) -> None:
    done = run_rules(
        tmp_path,
        "import asyncio, pytest, subprocess, threading\n"
        "@pytest.mark.time_limit(0.3)\n"
        f"def test_hangs():\n    {hang}\n"
        "def test_next():\n    pass\n",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "took longer than its time limit" in done.stdout
    assert "in test_hangs" in done.stderr


def test_a_hang_in_a_fixture_fails(tmp_path: Path) -> None:
    done = run_rules(
        tmp_path,
        "import pytest, threading\n"
        "@pytest.fixture\ndef hangs():\n    threading.Event().wait()\n"
        "@pytest.mark.time_limit(0.3)\ndef test_one(hangs):\n    pass\n",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 error" in done.stdout


@pytest.mark.parametrize("options", ["", ", start_new_session=True"])
def test_a_process_left_behind_fails_the_run_and_is_ended(tmp_path: Path, options: str) -> None:
    pid_file = tmp_path / "pid"
    done = run_rules(
        tmp_path,
        "import pathlib, subprocess, sys\n"
        "def test_leaves():\n"
        "    # by way of a shell that ends, so that it is nobody's child any more\n"
        "    subprocess.run(['sh', '-c', 'sleep 1000 >/dev/null 2>&1 & echo $! >pid']"
        f"{options}, check=True)\n",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "processes left behind" in done.stdout
    pid = int(pid_file.read_text())
    assert f"pid {pid}" in done.stdout
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_clean_run_is_left_alone(tmp_path: Path) -> None:
    done = run_rules(tmp_path, "import subprocess\ndef test_tidy():\n    subprocess.run(['true'], check=True)\n")
    assert done.returncode == 0, done.stdout + done.stderr
