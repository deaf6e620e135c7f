"""A throw-away machine whose process 1 is a real systemd, in namespaces of this one; as root, without virtualisation.

Its root is an overlay over a tree that `trees.sh` made, its network is a loopback of its own, and all of it (processes,
mounts, cgroups, files) is gone when it is closed, or when this process is.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.kits.machines.commanded import BOOT_S, PATIENCE_S, Commanded, MachineError, Said, hold, pairs

_LOOK_S = 0.05
# A command, and the Debian package that has it.
NEEDED = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mmdebstrap": "mmdebstrap",
    "dh": "debhelper",
    "dh_python3": "dh-python",
    "lintian": "lintian",
}
# Into the machine's own cgroup too: `systemctl status` cannot cope with a process from outside.
_INTO = (
    "echo 0 >/sys/fs/cgroup/init.scope/cgroup.procs; exec nsenter --cgroup=/proc/1/ns/cgroup setpriv --pdeathsig KILL"
    ' env -i HOME=/root USER=root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"'
)


def why_not() -> str | None:
    """Why no machine can be booted here; None when one can."""
    if os.geteuid() != 0:
        return "only root can boot a machine"
    missing = {name: debian for name, debian in NEEDED.items() if not shutil.which(name)}
    if missing:
        install = f"apt-get install -y {' '.join(dict.fromkeys(missing.values()))}"
        return f"cannot boot a machine with the package: there is no {', no '.join(missing)}; run: {install}"
    if _cgroups() is None:
        return "cannot boot a machine: no cgroup v2 file system is mounted"
    return None


def _cgroups() -> Path | None:
    said = subprocess.run(["findmnt", "-nro", "TARGET", "-t", "cgroup2"], capture_output=True, text=True, check=False)
    return Path(said.stdout.split()[0]) if said.stdout.split() else None


class Machine(Commanded):
    """Booted by `boot`, ended by `close`."""

    def __init__(self, *, tree: Path, name: str, binds: Mapping[str, str], prepare: str) -> None:
        """`binds`: where what is shown, read-only. `prepare`: shell code run in its root before the first boot."""
        self._dir = Path(tempfile.mkdtemp(prefix=f"runnerd-{name}-"))
        top = _cgroups()
        assert top is not None
        self._cgroup = top / self._dir.name
        for part in (self._cgroup, self._cgroup / "holder"):
            part.mkdir()
        self._log = (self._dir / "log").open("w+b")
        self._holder = hold(
            "machine.sh",
            log=self._log,
            tree=tree,
            dir=self._dir,
            cgroup=self._cgroup,
            name=name,
            binds=pairs(binds),
            prepare=prepare,
        )

    def boot(self) -> None:
        """Wait until its boot has ended."""
        self.until(lambda: self._up() is not None, "it boots", limit_s=BOOT_S)
        self.until(self._booted, "its boot ends", limit_s=BOOT_S)

    def _booted(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).out.strip() in ("running", "degraded")

    def _up(self) -> int | None:
        """Its process 1, as it is numbered here."""
        if self._holder.poll() is not None:
            raise MachineError(f"the machine went down: {self.words()}")
        try:
            pids = (self._cgroup / "machine/init.scope/cgroup.procs").read_text().split()
        except OSError:
            return None
        return next((int(pid) for pid in pids if _inner_pid(pid) == "1"), None)

    def run(self, *argv: str, check: bool = True, stdin: str = "", timeout_s: float = PATIENCE_S) -> Said:
        """Run a command in it, as its root."""
        done = self.start(*argv)
        try:
            out, err = done.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            done.kill()
            raise MachineError(f"{shlex.join(argv)} did not end in {timeout_s:g} s: {done.communicate()}") from None
        said = Said(done.returncode, out, err)
        if check and said.status != 0:
            raise MachineError(f"{shlex.join(argv)}: {said}")
        return said

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command in it, as its root, without waiting for it."""
        return self._nsenter(*argv, stdin=subprocess.PIPE)

    def _nsenter(self, *argv: str, stdin: int | IO[bytes]) -> subprocess.Popen[str]:
        first = self._up()
        if first is None:
            raise MachineError("the machine is not up")
        return subprocess.Popen(
            ["nsenter", "-t", str(first), "-m", "-u", "-i", "-n", "-p", "sh", "-c", _INTO, "sh", *argv],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )

    def put(self, source: Path, path: str) -> None:
        """Copy a file of ours into it."""
        with source.open("rb") as file:
            copying = self._nsenter("sh", "-c", 'cat >"$1"', "sh", path, stdin=file)
            _, said = copying.communicate(timeout=PATIENCE_S)
            if copying.returncode != 0:
                raise MachineError(f"cannot copy {source} to {path}: {said}")

    def reboot(self) -> None:
        """Shut it down as its administrator would, and boot it again."""
        before = self._up()
        self.run("systemctl", "--no-block", "reboot")
        self.until(lambda: self._up() not in (None, before), "it boots again")
        self.until(self._booted, "its boot ends", limit_s=BOOT_S)

    def close(self) -> None:
        """End it and remove every trace."""
        first = self._up() if self._holder.poll() is None else None
        if first is not None:
            os.kill(first, signal.SIGRTMIN + 4)  # systemd: power off
            try:
                self._holder.wait(20.0)
            except subprocess.TimeoutExpired:
                pass  # it is ended the hard way
        (self._cgroup / "cgroup.kill").write_text("1")
        self._holder.wait(PATIENCE_S)
        self._log.close()
        self._remove_cgroups()
        shutil.rmtree(self._dir)

    def _remove_cgroups(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while self._cgroup.exists():
            for part, _, _ in os.walk(self._cgroup, topdown=False):
                try:
                    os.rmdir(part)
                except OSError:
                    if time.monotonic() > end:
                        raise
            time.sleep(_LOOK_S)

    def words(self) -> str:
        self._log.flush()
        said: Sequence[str] = (self._dir / "log").read_text(errors="replace").splitlines()[-10:]
        return "; ".join(said) or "it said nothing"


def _inner_pid(pid: str) -> str | None:
    """The number of a process in its own namespace; None when it is gone, as those of `run` are every moment."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    line = next((line for line in lines if line.startswith("NSpid:")), "")
    return line.split()[-1] if line else None


if __name__ == "__main__":
    print(why_not() or "")
    sys.exit(why_not() is not None)
