"""What of the host's cgroup v2 tree is delegated: the cgroup of our own unit, or that of a unit beside it.

Delegated is a cgroup that says so (the attribute systemd sets for Delegate=yes) and that we may write.
"""

from __future__ import annotations

import os

from runnerd.spawner.cgroups.run_cgroup import lines

SPAWNER = "spawner"  # our place in our own, so that runs are beside us
_DELEGATE = ("user.delegate", "trusted.delegate")


class NotDelegated(Exception):
    """Says why."""


def find_own() -> str:
    """The directory of the cgroup that is delegated to us. Raises NotDelegated, OSError."""
    own = _own_directory()
    candidates = [own]
    if os.path.basename(own) == SPAWNER:
        candidates.append(os.path.dirname(own))  # a spawner started us, or systemd by DelegateSubgroup=spawner
    for directory in candidates:
        if _says_so(directory):
            return _writable(directory)
    raise NotDelegated(f"cgroup {own} is not delegated (systemd: Delegate=yes)")


def find_beside(unit: str) -> str:
    """That of another unit of our slice. Raises NotDelegated, OSError."""
    own = _own_directory()
    slices = [os.path.dirname(own)]
    if os.path.basename(own) == SPAWNER:
        slices.append(os.path.dirname(slices[0]))
    for directory in (os.path.join(slice_, unit) for slice_ in slices):
        if not os.path.isdir(directory):
            continue
        if not _says_so(directory):
            raise NotDelegated(f"cgroup {directory} is not delegated (systemd: Delegate=yes)")
        return _writable(directory)
    raise NotDelegated(f"there is no cgroup of {unit} beside {own} (systemctl start {unit})")


def _says_so(directory: str) -> bool:
    return any(_attribute(directory, name) == b"1" for name in _DELEGATE)


def _writable(directory: str) -> str:
    if not all(os.access(path, os.W_OK) for path in (directory, os.path.join(directory, "cgroup.procs"))):
        raise NotDelegated(f"cgroup {directory} is delegated, and not to this user")
    return directory


def _own_directory() -> str:
    path = own_path(lines("/proc/self/cgroup"))
    if path is None:
        raise NotDelegated("this system has no cgroup v2")
    for root, mount in mounts(lines("/proc/self/mountinfo")):
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
