"""A daemon in the background, and the host it runs on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from tests.kits.daemon import GENEROUS_S, TERM, Host, alive, eventually

NOWHERE = "http://127.0.0.1:1/api"


class Background(Host):
    """A host whose daemon is started as an init script does it."""

    def __init__(self) -> None:
        super().__init__(url=NOWHERE, python=sys.executable)
        self.pid_file = self.root / "run" / "runnerd.pid"
        self.log = self.root / "log" / "runnerd.log"

    def daemonize(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Returns at the end of its output: a daemon that kept the terminal's descriptors would be noticed."""
        return subprocess.run(
            [*self.argv, "--daemonize", *words],
            env=self.environ | dict(environ or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GENEROUS_S,
            cwd=self.root,
        )

    def begin(self, *words: str) -> int:
        """Start it; its pid."""
        started = self.daemonize(*words)
        assert (started.returncode, started.stdout, started.stderr) == (0, "", ""), self.said()
        return self.pid()

    def starting(self) -> subprocess.Popen[str]:
        """One that waits for a spawner which says nothing; its starter, once the daemon is there."""
        # As a terminal would have it: who starts tests in the background has Ctrl-C ignored, and that is inherited.
        argv = ["env", "--default-signal=INT", *self.argv, "--daemonize"]
        process = subprocess.Popen(argv, env=self.environ, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        eventually(lambda: self.pid_file.exists() and self.pid_file.read_text(), "the daemon to be there")
        eventually(lambda: (self.root / "run" / "control.sock").exists(), "it to take signals")
        return process

    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def stop(self) -> None:
        pid = self.pid()
        os.kill(pid, TERM)
        eventually(lambda: not alive(pid), "the daemon to stop", log=self.said)

    def files(self) -> dict[str, tuple[int, int]]:
        """Its files: which they are, and when they were changed."""
        found = (p for p in self.root.rglob("*") if p.is_file() and "-spawner" not in str(p))
        return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found if p.suffix not in (".db", ".db-wal")}
