"""What the tests of runnerctl init and add share: an empty environment, and folders with flows."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from runnerd.cli.__main__ import main
from runnerd.config import HostDefaults
from tests.kits.warm_host import a_venv

URL = "http://127.0.0.1:4711/api"
FLOW = "from prefect import flow\n\n@flow\ndef nightly(): ...\n\ndef other(): ...\n"
DEFAULTS = HostDefaults(hostname="h", python="/usr/bin/python3", flow_user="nobody")
_OF_PREFECT = ("PREFECT_PROFILE", "PREFECT_HOME", "PREFECT_PROFILES_PATH", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")


def empty_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's user, no daemon, and nothing in PATH."""
    for name in ("VIRTUAL_ENV", "SUDO_USER", *_OF_PREFECT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PREFECT_API_URL", URL)
    monkeypatch.setenv("RUNNERD_SOCKET", str(tmp_path / "absent.sock"))
    monkeypatch.setenv("RUNNERD_FLOW_USER", "nobody")


def etc(tmp_path: Path) -> Path:
    """The configuration directory."""
    folder = tmp_path / "etc"
    folder.mkdir(exist_ok=True)
    return folder


def called(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    """The exit status of runnerctl, and what it printed."""
    before = signal.getsignal(signal.SIGPIPE)
    try:
        status = main([str(word) for word in argv])
    finally:
        signal.signal(signal.SIGPIPE, before)  # or a closed connection of a later test would end all of them
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def init(tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    return called(capsys, "init", "--config", etc(tmp_path), *more)


def project(folder: Path, *, venv: bool = True) -> Path:
    """A folder with a flow in flows/etl.py, and mostly with a venv; the file."""
    if venv:
        a_venv(folder / ".venv").chmod(0o755)
    (folder / "flows").mkdir(parents=True)
    (folder / "pyproject.toml").touch()
    file = folder / "flows" / "etl.py"
    file.write_text(FLOW)
    return file
