"""A cgroup of its own for each run, where a part of the host's cgroup v2 tree is delegated to the spawner.

* Delegated is a cgroup that says so (the attribute systemd sets for Delegate=yes) and that we may write. We go into its
  child `spawner`, runs into its children `run-KEY.ATTEMPT`: the names are how a later spawner finds them again.
* Membership survives setsid, a double fork and the death of every parent, and killing it cannot be outrun by forking.
* No controller is enabled: with one, processes may only be in leaves, and systemd starts the next spawner in the
  delegated cgroup itself; the kernel would refuse that (EBUSY) for as long as a run lives.
* Nothing here is needed: without delegation, or when a step fails, a run goes without and is swept as any other.
"""

from __future__ import annotations

import errno
import os
import signal

from runnerd.spawner.log import log

_SPAWNER = "spawner"
_DELEGATE = ("user.delegate", "trusted.delegate")
_KILL_FILE = "cgroup.kill"
_PIDS_AT_ONCE = 64  # each takes a descriptor


class NotDelegated(Exception):
    """Says why."""


class Cgroup:
    """One run's. What is gone already is no error; otherwise its methods raise OSError."""

    __slots__ = ("_kill_file", "directory")

    def __init__(self, directory: str, *, kill_file: str = _KILL_FILE) -> None:
        self.directory = directory
        self._kill_file = kill_file

    def place(self, pid: int) -> None:
        """Put a process in, and all that it will ever fork."""
        # Limits (memory.max, cpu.max, pids.max) are to be written before this, while nobody is in to exceed them.
        _write(os.path.join(self.directory, "cgroup.procs"), str(pid))

    def populated(self) -> bool:
        """Whether a process lives in it or below."""
        return _counts(os.path.join(self.directory, "cgroup.events")).get("populated", 0) > 0

    def killed_for_memory(self) -> int | None:
        """How many processes in it or below the kernel killed for want of memory; None without a memory controller."""
        return _counts(os.path.join(self.directory, "memory.events")).get("oom_kill")

    def members(self) -> list[int]:
        """The pids of what lives in it or below."""
        return [pid for directory in _tree(self.directory) for pid in _members(directory)]

    def kill(self) -> None:
        """SIGKILL to all that live in it or below. They go in their own time: see `populated`."""
        try:
            _write(os.path.join(self.directory, self._kill_file), "1")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
                raise
            # Before Linux 5.14, or gone, which the listing below shows.
            for directory in _tree(self.directory):
                _kill_each(directory)

    def remove(self) -> bool:
        """Remove it and what was made below it; False while a process lives there."""
        try:
            for directory in reversed(_tree(self.directory)):
                os.rmdir(directory)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno != errno.ENOENT:
                raise
        return True


class Cgroups:
    """Those of all runs, in `root`; None where nothing is delegated, and then `why` says why."""

    def __init__(self, *, root: str | None, why: str | None = None) -> None:
        self._root = root
        self.why = why

    @classmethod
    def take(cls) -> Cgroups:
        """Find what is delegated to us and go into our place in it."""
        try:
            root = _find_delegated()
            _enter(os.path.join(root, _SPAWNER))
        except NotDelegated as reason:
            return cls(root=None, why=str(reason))
        except OSError as error:
            return cls(root=None, why=f"cannot use {error.filename or 'the cgroup'}: {error.strerror}")
        return cls(root=root)

    @property
    def root(self) -> str | None:
        return self._root

    def make(self, key: str, attempt: int) -> Cgroup | None:
        """A new one for a run; None where the run has to go without."""
        directory = self._directory(key, attempt)
        if directory is None:
            return None
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            pass  # an earlier spawner died between this and the run's record
        except OSError as error:
            log(f"key={key} attempt={attempt} cannot make cgroup {directory}: {error.strerror}; going without")
            return None
        return Cgroup(directory)

    def find(self, key: str, attempt: int) -> Cgroup | None:
        """That of a run an earlier spawner started."""
        directory = self._directory(key, attempt)
        return Cgroup(directory) if directory is not None and os.path.isdir(directory) else None

    def clean(self, *, keep: set[str]) -> None:
        """Remove those in which nobody is left; what lives is not ended for want of a record."""
        if self._root is None:
            return
        try:
            for name in os.listdir(self._root):
                directory = os.path.join(self._root, name)
                if name.startswith("run-") and directory not in keep and not Cgroup(directory).remove():
                    log(f"left cgroup {directory} as it is: a process lives there, and no run is known that it is of")
        except OSError as error:
            log(f"cannot remove old cgroups in {self._root}: {error.strerror}")

    def _directory(self, key: str, attempt: int) -> str | None:
        return None if self._root is None else os.path.join(self._root, f"run-{key}.{attempt}")


# --- one cgroup -------------------------------------------------------------------------------------------------


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _lines(path: str) -> list[str]:
    """None of a file or cgroup that is gone; ENODEV is a cgroup removed while its file was open."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return []
        raise


def _counts(path: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in _lines(path))}


def _tree(top: str) -> list[str]:
    """It and all below it, parents first."""
    found = [top]
    for directory in found:
        try:
            with os.scandir(directory) as entries:
                found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            continue
    return found


def _members(directory: str) -> list[int]:
    # A process of a pid namespace that is none of ours reads as 0.
    return [pid for pid in map(int, _lines(os.path.join(directory, "cgroup.procs"))) if pid > 0]


def _kill_each(directory: str) -> None:
    """Once each; who forks meanwhile is for the caller's next pass."""
    pids = _members(directory)
    for first in range(0, len(pids), _PIDS_AT_ONCE):
        _kill_some(directory, pids[first : first + _PIDS_AT_ONCE])


def _kill_some(directory: str, pids: list[int]) -> None:
    opened: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                opened[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        # Only who is still listed: a pid may have passed to a stranger before its pidfd was open.
        for pid in opened.keys() & set(_members(directory)):
            try:
                signal.pidfd_send_signal(opened[pid], signal.SIGKILL)
            except ProcessLookupError:
                continue
    finally:
        for pidfd in opened.values():
            os.close(pidfd)


# --- what is delegated ------------------------------------------------------------------------------------------


def _find_delegated() -> str:
    """The directory of the cgroup that is delegated to us. Raises NotDelegated, OSError."""
    own = _own_directory()
    candidates = [own]
    if os.path.basename(own) == _SPAWNER:
        candidates.append(os.path.dirname(own))  # a spawner started us, or systemd by DelegateSubgroup=spawner
    for directory in candidates:
        if any(_attribute(directory, name) == b"1" for name in _DELEGATE):
            if not os.access(directory, os.W_OK) or not os.access(os.path.join(directory, "cgroup.procs"), os.W_OK):
                raise NotDelegated(f"cgroup {directory} is delegated, and not to this user")
            return directory
    raise NotDelegated(f"cgroup {own} is not delegated (systemd: Delegate=yes)")


def _own_directory() -> str:
    path = own_path(_lines("/proc/self/cgroup"))
    if path is None:
        raise NotDelegated("this system has no cgroup v2")
    for root, mount in mounts(_lines("/proc/self/mountinfo")):
        within = root.rstrip("/")
        if path == root or path.startswith(within + "/"):
            directory = (mount + path[len(within) :]).rstrip("/")
            if os.path.isdir(directory):
                return directory
    raise NotDelegated(f"cgroup {path} cannot be seen: no cgroup v2 file system is mounted here that shows it")


def own_path(lines: list[str]) -> str | None:
    """From /proc/self/cgroup."""
    return next((line[len("0::") :] for line in lines if line.startswith("0::")), None)


def mounts(lines: list[str]) -> list[tuple[str, str]]:
    """From /proc/self/mountinfo: of each cgroup v2 file system, what of it is mounted and where."""
    found = []
    for line in lines:
        place, _, kind = line.partition(" - ")
        if kind.split(" ", 1)[0] == "cgroup2":
            root, mount = place.split(" ")[3:5]
            found.append((_unescaped(root), _unescaped(mount)))
    return found


def _unescaped(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _attribute(directory: str, name: str) -> bytes | None:
    try:
        return os.getxattr(directory, name)
    except OSError:
        return None  # not set, not ours to read, or a kernel without attributes here


def _enter(directory: str) -> None:
    """Raises OSError, with nothing left behind."""
    made = not os.path.isdir(directory)
    if made:
        os.mkdir(directory, 0o755)
    try:
        _write(os.path.join(directory, "cgroup.procs"), "0")
    except OSError:
        if made:
            os.rmdir(directory)
        raise
