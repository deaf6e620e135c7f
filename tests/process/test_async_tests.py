"""How async tests run: on the loop of their folder, and nowhere without one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kits.inner_pytest import run_pytest

UNIT, PROCESS = Path("tests/unit/conftest.py"), Path("tests/process/conftest.py")
ELSEWHERE = Path("tests/conftest.py")
HOOKS = pytest.mark.parametrize("conftest", [UNIT, PROCESS], ids=["unit", "process"])


def run_async(folder: Path, conftest: Path, test: str) -> subprocess.CompletedProcess[str]:
    imports = "import asyncio, os, threading, pytest\n"
    return run_pytest(folder, imports + test, conftest=conftest)


@HOOKS
def test_what_fails_fails(tmp_path: Path, conftest: Path) -> None:
    done = run_async(
        tmp_path,
        conftest,
        "@pytest.mark.parametrize('seconds', [0, 0.01])\n"
        "async def test_sleeps(tmp_path, seconds):\n"
        "    await asyncio.sleep(seconds)\n"
        "    assert tmp_path.is_dir()\n"
        "    assert seconds == 0, 'after the sleep'\n",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "AssertionError: after the sleep" in done.stdout


@HOOKS
def test_a_plain_test_runs_on_no_loop(tmp_path: Path, conftest: Path) -> None:
    done = run_async(
        tmp_path,
        conftest,
        "def test_plain():\n    with pytest.raises(RuntimeError):\n        asyncio.get_running_loop()\n",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("conftest", [UNIT, PROCESS, ELSEWHERE], ids=["unit", "process", "elsewhere"])
def test_what_no_loop_can_run_fails(tmp_path: Path, conftest: Path) -> None:
    text = "async def test_yields():\n    yield\n"
    if conftest == ELSEWHERE:
        text += "async def test_waits():\n    await asyncio.sleep(0)\n"
    done = run_async(tmp_path, conftest, text)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{text.count('async def')} failed in" in done.stdout
    assert "async def functions are not natively supported" in done.stdout


def test_a_unit_test_that_waits_for_nothing_fails(tmp_path: Path) -> None:
    done = run_async(tmp_path, UNIT, "async def test_waits():\n    await asyncio.Event().wait()\n")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed in" in done.stdout
    assert "Stuck: nothing is ready and no timer is set" in done.stdout


def test_a_unit_test_jumps_except_over_what_is_real(tmp_path: Path) -> None:
    done = run_async(
        tmp_path,
        UNIT,
        "async def read_a_byte():\n"
        "    loop, arrived, (reading, writing) = asyncio.get_running_loop(), asyncio.Event(), os.pipe()\n"
        "    loop.add_reader(reading, arrived.set)\n"
        "    writer = threading.Timer(0.1, os.write, (writing, b'x'))\n"
        "    writer.start()\n"
        "    try:\n"
        "        async with asyncio.timeout(60):\n"
        "            await arrived.wait()\n"
        "    finally:\n"
        "        loop.remove_reader(reading)\n"
        "        writer.join()\n"
        "        os.close(reading)\n"
        "        os.close(writing)\n"
        "@pytest.mark.real_io\n"
        "async def test_waits():\n"
        "    await read_a_byte()\n"
        "async def test_jumps():\n"
        "    with pytest.raises(TimeoutError):\n"
        "        await read_a_byte()\n",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
