"""Find the delegated cgroup for runs: that of the spawner's own unit, or that of another unit of the same slice.

A cgroup (v2) is delegated when systemd marked its directory so (an extended attribute, for Delegate=yes) and the
spawner may write there.
"""

from __future__ import annotations

import os

from runnerd.spawner.cgroups.run_cgroup import read_lines

SPAWNER_CGROUP = "spawner"  # the spawner's own cgroup in the delegated one, beside those of the runs
_DELEGATE_ATTRIBUTES = ("user.delegate", "trusted.delegate")


class NotDelegated(Exception):
    """No cgroup is delegated; the message says why."""


def find_own() -> str:
    """Return the directory of the cgroup that is delegated to the spawner. Raises NotDelegated, OSError."""
    own = _own_directory()
    candidates = [own]
    if os.path.basename(own) == SPAWNER_CGROUP:
        # Started in that cgroup already: by another spawner, or by systemd with DelegateSubgroup=spawner.
        candidates.append(os.path.dirname(own))
    for directory in candidates:
        if _is_marked(directory):
            return _check_writable(directory)
    raise NotDelegated(f"cgroup {own} is not delegated (systemd: Delegate=yes)")


def find_of_unit(unit: str) -> str:
    """Return the directory of the cgroup of another unit in the spawner's slice. Raises NotDelegated, OSError."""
    own = _own_directory()
    slices = [os.path.dirname(own)]
    if os.path.basename(own) == SPAWNER_CGROUP:
        slices.append(os.path.dirname(slices[0]))
    for directory in (os.path.join(slice_, unit) for slice_ in slices):
        if not os.path.isdir(directory):
            continue
        if not _is_marked(directory):
            raise NotDelegated(f"cgroup {directory} is not delegated (systemd: Delegate=yes)")
        return _check_writable(directory)
    raise NotDelegated(f"there is no cgroup of {unit} beside {own} (systemctl start {unit})")


def _is_marked(directory: str) -> bool:
    return any(_read_attribute(directory, name) == b"1" for name in _DELEGATE_ATTRIBUTES)


def _check_writable(directory: str) -> str:
    if not all(os.access(path, os.W_OK) for path in (directory, os.path.join(directory, "cgroup.procs"))):
        raise NotDelegated(f"cgroup {directory} is delegated, but not to this user")
    return directory


def _own_directory() -> str:
    path = own_path(read_lines("/proc/self/cgroup"))
    if path is None:
        raise NotDelegated("this system has no cgroup v2")
    for root, mount in mounts(read_lines("/proc/self/mountinfo")):
        within = root.rstrip("/")
        if path == root or path.startswith(within + "/"):
            directory = (mount + path[len(within) :]).rstrip("/")
            if os.path.isdir(directory):
                return directory
    raise NotDelegated(f"cgroup {path} cannot be used: no cgroup v2 file system mounted here contains it")


def own_path(lines: list[str]) -> str | None:
    """Return the path of this process's cgroup v2, from the lines of /proc/self/cgroup; None where v2 is not in use."""
    return next((line[len("0::") :] for line in lines if line.startswith("0::")), None)


def mounts(lines: list[str]) -> list[tuple[str, str]]:
    """Return (mounted subtree, mount point) of each cgroup v2 mount, from the lines of /proc/self/mountinfo."""
    found = []
    for line in lines:
        mount_fields, _, kind = line.partition(" - ")
        if kind.split(" ", 1)[0] == "cgroup2":
            root, mount = mount_fields.split(" ")[3:5]
            found.append((_unescape(root), _unescape(mount)))
    return found


def _unescape(path: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path


def _read_attribute(directory: str, name: str) -> bytes | None:
    try:
        return os.getxattr(directory, name)
    except OSError:
        return None  # not set, not readable for us, or a kernel without extended attributes on cgroups
