"""A real spawner in a directory of its own, a client that remembers what it heard, and waiting on conditions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from runnerd import __file__ as package_file
from runnerd.core.process import LaunchSpec
from runnerd.processes.client import SpawnerClient
from runnerd.processes.protocol import Record

LIMIT_S = 60.0
PACKAGE = Path(package_file).parent
SYSTEM_PYTHON = "/usr/bin/python3"

# Tests that run as root start runs as root, which takes two words.
OWN_USER = "root" if os.geteuid() == 0 else None
LIST_WITH_ROOT = ("--users", "root,nobody,daemon,games,bin,no-such-user") if os.geteuid() == 0 else ()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing users takes root")
needs_system_python = pytest.mark.skipif(
    not os.access(SYSTEM_PYTHON, os.X_OK), reason=f"needs {SYSTEM_PYTHON}, which every user may run"
)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """For things without an event to wait on; the limit only ends a test that fails."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT_S} s for {what}"
        time.sleep(0.005)


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_of(pid: int) -> str:
    """Empty for a zombie and for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def open_files(pid: int) -> list[str]:
    """What its descriptors name; those that it closes meanwhile are left out."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def assert_nothing_left(spawner: SpawnerUnderTest) -> None:
    """Neither a child nor a zombie nor a descriptor."""
    assert spawner.process is not None
    pid = spawner.process.pid
    assert Path(f"/proc/{pid}/task/{pid}/children").read_text().split() == []
    assert not any("pidfd" in name for name in open_files(pid))


class Link:
    """A client, and all it was told since it connected."""

    def __init__(self, client: SpawnerClient, records: list[Record]) -> None:
        self.client = client
        self.replayed = {(record.key, record.attempt): record for record in records}
        self.heard: list[Record] = []
        self.lost = asyncio.Event()
        self.changed = asyncio.Event()

    def on_record(self, record: Record) -> None:
        self.heard.append(record)
        self.changed.set()

    async def until(self, key: str, phase: str, attempt: int = 0) -> Record:
        """The first record heard, or else replayed, with this phase."""
        return await self.until_record(
            lambda record: (record.key, record.attempt, record.phase) == (key, attempt, phase)
        )

    async def until_record(self, is_it: Callable[[Record], bool]) -> Record:
        """The first record heard, or else replayed, that is the one."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for record in [*self.heard, *self.replayed.values()]:
                    if is_it(record):
                        return record
                self.changed.clear()
                await self.changed.wait()

    def phases(self, key: str) -> list[str]:
        return [record.phase for record in self.heard if record.key == key]


class SpawnerUnderTest:
    """A spawner's directory; the program in it may be started, ended and started again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = str(home / "s")
        self.runtime_dir = home / "run"
        self.records = self.runtime_dir / "records"
        self.log = home / "log"
        self.child_script = home / "child.py"
        self.arguments = ["--socket", self.socket, "--runtime-dir", str(self.runtime_dir)]
        self.process: subprocess.Popen[bytes] | None = None
        self._said_before = 0

    def start(
        self,
        *extra: str,
        program: tuple[str, ...] | None = None,
        user: str | None = None,
        through: tuple[str, ...] = (),
        listed: bool = True,
    ) -> None:
        """Returns when the socket answers. `program` is a mode of child.py to run instead of the product's own.

        A root spawner has a list with root in it, unless not `listed`.
        """
        listing = LIST_WITH_ROOT if listed and user is None else ()
        self.start_only(*listing, *extra, program=program, user=user, through=through)
        wait_until(self._answers, "the spawner's socket")

    def start_only(
        self,
        *extra: str,
        program: tuple[str, ...] | None = None,
        user: str | None = None,
        through: tuple[str, ...] = (),
    ) -> subprocess.Popen[bytes]:
        """`through` is a command that execs the one that follows."""
        python, package = (sys.executable, PACKAGE) if user is None else (SYSTEM_PYTHON, self.public_package())
        command = [python, "-I", "-S", str(package / "spawner" / "__main__.py")]
        environment = {"LANG": "C.UTF-8", "LEAK": "must not reach a run"}
        if program is not None:
            command = [python, str(self.child_script), *program]
            environment["PYTHONPATH"] = str(package.parent)
        self._said_before = len(self.said())
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*through, *command, *self.arguments, *extra],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if program else log,
                stderr=log,
                env=environment,
                user=user,
                group=None if user is None else pwd.getpwnam(user).pw_gid,
                extra_groups=None if user is None else [],
            )
        return self.process

    def public_package(self) -> Path:
        """A copy that any user can read."""
        copy = self.home / "package" / "runnerd"
        if not copy.exists():
            shutil.copytree(PACKAGE / "spawner", copy / "spawner", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(PACKAGE / "__init__.py", copy)
        return copy

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the spawner ended: {self.said()}"
        return "serving " in self.said()[self._said_before :]

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it and return its exit status."""
        assert self.process is not None
        process, self.process = self.process, None
        with process:
            process.send_signal(number)
            return process.wait(LIMIT_S)

    def wait(self) -> int:
        """Its exit status, once it goes by itself."""
        assert self.process is not None
        process, self.process = self.process, None
        with process:
            return process.wait(LIMIT_S)

    @contextlib.asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """A connected client."""
        heard: list[Link] = []
        client = SpawnerClient(
            socket_path=self.socket,
            on_record=lambda record: heard[0].on_record(record),
            on_lost=lambda: heard[0].lost.set(),
        )
        heard.append(Link(client, await client.connect()))
        try:
            yield heard[0]
        finally:
            await client.close()

    def spec(self, key: str, *argv: str, mode: tuple[str, ...] = (), **settings: object) -> LaunchSpec:
        """A run of `argv`, or of child.py in this mode; as the spawner's own user unless a user is given."""
        python = SYSTEM_PYTHON if settings.get("user") else sys.executable
        defaults: dict[str, object] = {
            "key": key,
            "attempt": 0,
            "argv": argv or (python, "-I", "-S", str(self.child_script), *mode),
            "environment": {"PATH": "/usr/bin:/bin"},
            "working_directory": "/",
            "output": str(self.home / f"{key}.out"),
            "own": settings.get("user") is None,
        }
        return LaunchSpec(**{**defaults, **settings})  # type: ignore[arg-type]

    def output(self, key: str) -> str:
        path = self.home / f"{key}.out"
        return path.read_text() if path.exists() else ""

    def wait_for_output(self, key: str, text: str = "ready") -> str:
        wait_until(lambda: text in self.output(key), f"{text!r} in the output of {key}")
        return self.output(key)

    def processes_of(self, name: str) -> list[int]:
        """Those of child.py that have this word on their command line."""
        commands = {pid: command_of(pid).split("\0") for pid in all_pids()}
        return [pid for pid, words in commands.items() if str(self.child_script) in words and name in words]

    def clear(self) -> None:
        """End whatever the test left: its spawner, and every process whose command names the test's own directory."""
        if self.process is not None:
            self.end(signal.SIGKILL)
        while mine := [pid for pid in all_pids() if str(self.home) in command_of(pid)]:
            for pid in mine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
