"""Finds and reads the files of a configuration directory.

Invariants: only regular files on disk are opened (a FIFO would hang the daemon, a device may act when it is opened, and
/proc/kmsg takes lines away from others), at most MAX_BYTES of each are read, and only as UTF-8. Every failure is a
ConfigError with the file's place.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field

from runnerd.core.errors import ConfigError
from runnerd.core.place import Place, Problem
from runnerd.core.units import format_size

MAIN = "runnerd.yaml"
DROP_INS = "conf.d"
MAX_BYTES = 2 * 2**20

# Files that editors and dpkg leave behind.
_IGNORED = re.compile(r"\..*|.*~|.*\.dpkg-[^.]*|#.*#")


@dataclass(frozen=True, slots=True)
class Listing:
    """The drop-ins in name order; `known` is False when the directory could not be listed."""

    paths: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    known: bool = True


@dataclass(slots=True)
class _Found:
    paths: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def list_drop_ins(directory: str, *, expected: bool = False) -> Listing:
    """List the drop-ins in `conf.d`; an empty list when there is no such directory, and none is `expected`."""
    folder = os.path.join(directory, DROP_INS)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        if not expected:
            return Listing()
        # Perhaps a disk that is not mounted: without the directory, every deployment would be paused.
        kept = "the last good settings of its files stay in force; to remove them, make an empty directory"
        problem = Problem(message=f"the directory does not exist; {kept}", place=Place(folder))
        return Listing(problems=(problem,), known=False)
    except OSError as error:
        message = f"cannot list the drop-ins: {error.strerror}; their last good settings stay in force"
        return Listing(problems=(Problem(message=message, place=Place(folder)),), known=False)
    found = _Found()
    for name in names:
        path = os.path.join(folder, name)
        if _IGNORED.fullmatch(name):
            continue
        if name.endswith(".yaml"):
            found.paths.append(path)
        elif name.endswith(".yml"):
            message = f"is ignored; rename it to {name.removesuffix('.yml')}.yaml"
            found.problems.append(Problem(message=message, place=Place(path)))
    return Listing(tuple(found.paths), tuple(found.problems))


@dataclass(frozen=True, slots=True)
class FileText:
    """The text of a file, without a byte order mark, and the path of the file that was read, without links."""

    text: str
    real_path: str


def read_text(path: str) -> str:
    """Read a file as `read_file` does, and return its text."""
    return read_file(path).text


def read_file(path: str) -> FileText:
    """Read a configuration file. Raises ConfigError; FileNotFoundError when none exists."""
    try:
        data, real_path = _read(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise _error(path, f"is a link to {os.readlink(path)}, which does not exist") from None
        raise
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}") from None
    try:
        return FileText(data.decode("utf-8-sig"), real_path)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8"
        raise ConfigError([Problem(message=message, place=Place(path, line, column))]) from None


def _read(path: str) -> tuple[bytes, str]:
    """Return the content and the path without links."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)  # opens nothing yet
    try:
        status = os.fstat(place)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise _error(path, f"is {kind}; a configuration file is a regular file")
        if status.st_dev in _find_kernel_devices():
            raise _error(path, "is not a file on disk, but one of the kernel's; a configuration file is a regular file")
        _check_size(path, status.st_size)
        opened = f"/proc/self/fd/{place}"
        data = _read_opened(opened)
        _check_size(path, len(data))
        return data, os.readlink(opened)
    finally:
        os.close(place)


def _read_opened(path: str) -> bytes:
    """Read MAX_BYTES and one more at most; O_NONBLOCK because some files of special file systems would block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        data = bytearray()
        while len(data) <= MAX_BYTES and (block := os.read(descriptor, MAX_BYTES + 1 - len(data))):
            data += block
        return bytes(data)
    finally:
        os.close(descriptor)


def _check_size(path: str, size: int) -> None:
    if size > MAX_BYTES:
        raise _error(path, f"has {size} bytes, more than the limit of {format_size(MAX_BYTES)}; split it")


def _find_kernel_devices() -> set[int]:
    """Find the device numbers of /proc and /sys, whose files only look like regular ones."""
    return {os.stat(folder).st_dev for folder in ("/proc", "/sys") if os.path.ismount(folder)}


def _error(path: str, message: str) -> ConfigError:
    return ConfigError([Problem(message=message, place=Place(path))])
