"""README.md: its first drop-in is followed step by step, and prints what README shows."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kits.checkout import ROOT
from tests.kits.daemon import FLOWS_AS_ROOT, Host, eventually
from tests.kits.documents import blocks, of_this_host
from tests.kits.prefect_servers import PrefectServer

pytestmark = pytest.mark.server
README = (ROOT / "README.md").read_text()
FLOW = """
import pathlib, time
from prefect import flow

@flow(log_prints=True)
def nightly(region: str) -> None:
    print(f"loading {region}")
    while not pathlib.Path("done").exists():
        time.sleep(0.1)
"""
# What differs from one host, run and moment to another; the first that matches takes the text.
VARIES = (
    (r"\d{4}-\d\d-\d\d[T ][\d:.]+(?: UTC|Z)", "TIME"),
    (r"\b\d\d:\d\d:\d\d\.\d{3}\b", "TIME"),
    (r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "UUID"),
    (r"\b[0-9a-f]{8}\b", "ID"),
    (r"http://127\.0\.0\.1:\d+", "URL"),
    (r"(?<=running )\d+", "PID"),
    (r"\bnow\b|\d[\d. dhmins]* ago\b", "AGO"),
    (r"(?<= 1/1 )(?:-|in \d[\d dhmins]*)(?= -$)", "NEXT"),  # the server schedules in its own time
    (r"\b\d+(?:\.\d)? ?[KMG]\b", "SIZE"),
    (r"\b\d+(?:\.\d)? ?s\b", "SECONDS"),
    (r"(?<=^Requests: )\d+", "COUNT"),
    (r"pid \d+", "pid PID"),
    (r"^runnerd: [\w.+~-]+", "runnerd: VERSION"),
    (r"^Host: \S+", "Host: HOST"),
)


def shape(text: str, run_name: str) -> list[str]:
    """The lines of a text without what varies, and without the widths of columns."""
    lines = []
    for line in text.strip().splitlines():
        line = " ".join(line.split()).replace(run_name, "RUN-NAME")
        for pattern, word in VARIES:
            line = re.sub(pattern, word, line)
        lines.append(line)
    return lines


@pytest.fixture
def host(prefect3: PrefectServer) -> Iterator[Host]:
    """A host with the files of README, on directories and a server of its own."""
    host = Host(url=prefect3.url, python=prefect3.python)
    try:
        main, drop_in = blocks(README, "yaml")
        own = f"{{python: '{prefect3.python}', environment: {{PREFECT_HOME: '{host.root}/prefect-home'}}}}"
        assert "http://127.0.0.1:4200/api" in main and "\nrun:\n  python: /opt/flows/venv/bin/python" in main
        main = re.sub(r"^run:\n.*", f"run: {own}", main, flags=re.M)
        host.write_main(main.replace("http://127.0.0.1:4200/api", prefect3.url))
        (host.root / "flows").mkdir()
        (host.root / "flows" / "etl.py").write_text(FLOW)
        host.drop_in("20-etl.yaml", of_this_host(drop_in, host.root))
        yield host
    finally:
        host.close()


def on_a_terminal(host: Host, *words: str) -> str:
    """What runnerctl prints on a terminal of 120 columns."""
    main, side = pty.openpty()
    argv = [sys.executable, "-m", "runnerd.cli", "--socket", str(host.root / "run" / "control.sock"), *words]
    with os.fdopen(main, "rb", buffering=0) as screen:
        with os.fdopen(side, "wb") as terminal:
            environment = {**os.environ, **FLOWS_AS_ROOT, "COLUMNS": "120", "NO_COLOR": "1"}
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=terminal, env=environment)
        printed = b""
        with contextlib.suppress(OSError):  # EIO: the terminal's other end is closed
            while more := screen.read(65536):
                printed += more
        assert process.wait() == 0, printed
    return printed.decode().replace("\r\n", "\n")


def typed(host: Host, command: str, run_name: str) -> str:
    """Type a command of README, of this run instead of the one there, when there is something to see."""
    words = command.removeprefix("runnerctl ").split()
    if words[0] == "config":
        return on_a_terminal(host, *words, str(host.config)).replace(str(host.config), "/etc/runnerd")
    if words[0] == "status":
        eventually(lambda: "loading eu" in host.ctl("logs", run_name).stdout, "the flow's first line")
        eventually(lambda: host.json("status")["api"]["stream"]["state"] == "live", "events to arrive")
    if words[0] == "logs":
        (host.root / "done").touch()
        host.ended(run_name)
        words[1] = run_name
    return on_a_terminal(host, *words)


def test_the_first_drop_in_prints_what_readme_shows(host: Host) -> None:
    (block,) = [one for one in blocks(README, "console") if "runnerctl config check" in one]
    shown = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
    (name_shown,) = set(re.findall(r"created run (\S+)", block))
    host.start()
    host.registered("nightly")
    run_name, seen, wanted = "none yet", [], []
    for command, text in shown:
        printed = typed(host, command, run_name)
        print(f"$ {command}\n{printed}")
        if command.startswith("runnerctl run "):
            run_name = printed.split()[2]
        seen += shape(printed, run_name)
        wanted += shape(text, name_shown)
    eventually(lambda: "phase=done" in host.said(), "the end of the run in the log")
    (printed,) = [line for line in host.said().splitlines() if "phase=done" in line]
    print(printed)
    (log_line,) = blocks(README, "text")
    assert [*seen, *shape(printed, run_name)] == [*wanted, *shape(log_line, name_shown)]
