"""A throw-away machine with a kernel of its own, that has all of cgroup v2: User-Mode Linux, without virtualisation.

Slower than a `Machine`, and shut in: it has what it was prepared with, and gets commands as files in a directory that
it shares. All of it is gone when it is closed, or when this process is.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from tests.kits.machines.commanded import BOOT_S, HERE, PATIENCE_S, Commanded, MachineError, Said, hold, pairs


class DoesNotBoot(Exception):
    """This kernel does not run here; with what it said."""


def why_not() -> str | None:
    """Why there is no kernel for such a machine; None when there is one. Fetches it."""
    if not shutil.which("mke2fs"):
        return "cannot make a machine's disk: there is no mke2fs (e2fsprogs)"
    said = subprocess.run([str(HERE / "kernel.sh")], capture_output=True, text=True, check=False)
    if said.returncode == 0:
        return None
    return f"cannot fetch the kernel of user-mode-linux: {said.stderr.strip()}"


class OwnKernel(Commanded):
    """Booted by `boot`, ended by `close`."""

    def __init__(self, *, tree: Path, kernel: Path, name: str, binds: Mapping[str, str], prepare: str) -> None:
        """`binds`: where what is copied. `prepare`: shell code run in its root before the boot, by the kernel here."""
        self._dir = Path(tempfile.mkdtemp(prefix=f"runnerd-{name}-"))
        self._jobs = self._dir / "jobs"
        self._jobs.mkdir()
        self._numbers = count(1)
        self._log = (self._dir / "log").open("w+b")
        # Each of its processes has the other end: it reads as ended when the last of them has.
        self._alive, theirs = os.pipe()
        self._holder = hold(
            "own_kernel.sh",
            log=self._log,
            pass_fds=[theirs],
            tree=tree,
            kernel=kernel,
            dir=self._dir,
            name=name,
            binds=pairs(binds),
            prepare=prepare,
        )
        os.close(theirs)

    def boot(self) -> None:
        """Wait until its boot has ended. DoesNotBoot when it is the kernel that fails, and not what it boots."""
        try:
            self.run("true", timeout_s=BOOT_S)
        except MachineError as error:
            if (self._jobs / "powered").exists() and not (self._jobs / "booted").exists():
                raise DoesNotBoot(f"the kernel of user-mode-linux does not run here: {error}") from error
            raise
        said = self.run("systemctl", "is-system-running", "--wait", check=False)
        assert said.out.strip() in ("running", "degraded"), said

    def run(self, *argv: str, check: bool = True, stdin: str = "", timeout_s: float = PATIENCE_S) -> Said:
        """Run a command in it, as its root."""
        job = self._jobs / str(next(self._numbers))
        job.with_suffix(".in").write_text(stdin)
        job.with_suffix(".new").write_text(shlex.join(argv))
        job.with_suffix(".new").rename(job.with_suffix(".job"))
        done = job.with_suffix(".status")
        self.until(lambda: self._up() and done.exists(), f"{shlex.join(argv)} ends", limit_s=timeout_s)
        out, err = (job.with_suffix(end).read_text(errors="backslashreplace") for end in (".out", ".err"))
        said = Said(int(done.read_text()), out, err)
        for left in self._jobs.glob(f"{job.name}.*"):
            left.unlink()
        if check and said.status != 0:
            raise MachineError(f"{shlex.join(argv)}: {said}")
        return said

    def _up(self) -> bool:
        if self._holder.poll() is not None:
            raise MachineError(f"the machine went down: {self.words()}")
        return True

    def words(self) -> str:
        said = (self._dir / "log").read_text(errors="replace").splitlines()[-10:]
        return "; ".join(said) or "it said nothing"

    def close(self) -> None:
        """End it, as a power cut does, and remove every trace."""
        self._holder.kill()
        self._holder.wait(PATIENCE_S)
        gone, _, _ = select.select([self._alive], [], [], PATIENCE_S)
        os.close(self._alive)
        self._log.close()
        assert gone, f"the machine in {self._dir} does not end"
        shutil.rmtree(self._dir)
