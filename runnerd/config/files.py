"""Finds and reads the files of a configuration directory.

Invariants: only regular files are read (a FIFO would hang the daemon), at most MAX_BYTES of each, and only as UTF-8.
Every failure is a ConfigError with the file's place.
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


def list_drop_ins(directory: str) -> Listing:
    """List the drop-ins in `conf.d`; an empty list when there is no such directory."""
    folder = os.path.join(directory, DROP_INS)
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return Listing()
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


def read_text(path: str) -> str:
    """Read a configuration file, without a byte order mark. Raises ConfigError; FileNotFoundError when none exists."""
    try:
        data = _read(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise _error(path, f"is a link to {os.readlink(path)}, which does not exist") from None
        raise
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8"
        raise ConfigError([Problem(message=message, place=Place(path, line, column))]) from None


def _read(path: str) -> bytes:
    # O_NONBLOCK: opening a FIFO without a writer would otherwise block for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise _error(path, f"is {kind}; a configuration file is a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:
        size, limit = max(status.st_size, len(data)), format_size(MAX_BYTES)
        raise _error(path, f"has {size} bytes, more than the limit of {limit}; split it")
    return data


def _error(path: str, message: str) -> ConfigError:
    return ConfigError([Problem(message=message, place=Place(path))])
