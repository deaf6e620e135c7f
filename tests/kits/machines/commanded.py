"""What can be done with a machine by running commands in it, whatever kind of machine it is."""

from __future__ import annotations

import os
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from tests.kits.checkout import ROOT

HERE = ROOT / "tests" / "system"  # the scripts
BOOT_S = 120.0
PATIENCE_S = 120.0
_LOOK_S = 0.05


class MachineError(AssertionError):
    """It did not do what it was told; with what it said."""


class Said:
    """What a command in the machine said."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"exit status {self.status}\n{self.out}{self.err}"


def hold(script: str, *, log: IO[bytes], pass_fds: Sequence[int] = (), **settings: object) -> subprocess.Popen[bytes]:
    """Start what holds a machine: a script of ours in a mount namespace of its own, which ends with this process."""
    return subprocess.Popen(
        [*"setpriv --pdeathsig KILL unshare --mount --propagation slave bash".split(), str(HERE / script), "hold"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=pass_fds,
        env={"PATH": os.environ["PATH"], **{f"MACHINE_{name.upper()}": str(value) for name, value in settings.items()}},
    )


def pairs(binds: Mapping[str, str]) -> str:
    """Where what is shown, as the scripts read it."""
    return " ".join(f"{source}:{target}" for target, source in binds.items())


class Commanded(ABC):
    @abstractmethod
    def run(self, *argv: str, check: bool = True, stdin: str = "", timeout_s: float = PATIENCE_S) -> Said:
        """Run a command in it, as its root."""

    @abstractmethod
    def words(self) -> str:
        """What it said last, itself."""

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run shell code in it; what it printed."""
        return self.run("sh", "-euc", script, check=check).out.strip()

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file in it, at once: nobody in it sees a part."""
        script = f'mkdir -p "$(dirname "$1")"; cat >"$1.new~"; chmod {mode:o} "$1.new~"; mv "$1.new~" "$1"'
        self.run("sh", "-euc", script, "sh", path, stdin=text)

    def until(self, true: Callable[[], object], what: str, *, limit_s: float = PATIENCE_S) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + limit_s
        while not true():
            if time.monotonic() > end:
                raise MachineError(f"waited {limit_s:g} s in vain until {what}; {self.words()}")
            time.sleep(_LOOK_S)
