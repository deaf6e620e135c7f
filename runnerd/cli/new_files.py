"""Writes configuration files for runnerctl init, add and import.

Invariants: a file is there whole or not at all, also after a crash, and the daemon reads no half of one (names that
begin with a dot are none of its files); no existing file is replaced unless that is asked for; the daemon's group can
read what it needs, and only who can read the directory can read a file in it.
"""

from __future__ import annotations

import os
import pwd
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from runnerd.core.errors import RunnerdError

_DAEMON = "runnerd"  # the user of the packaged service


class Exists(RunnerdError):
    """Means that there is such a file already."""


def make_directory(path: str) -> None:
    """Make a directory of configuration files, readable as the one above it, unless it exists. Raises RunnerdError."""
    try:
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        raise RunnerdError(f"cannot make {path}: {error.strerror}{_advise(error)}") from None


@contextmanager
def beginning(path: str, text: str, *, secret: bool = False) -> Iterator[str]:
    """Write `text` beside `path` and yield that file's path, to be checked and then given to `finish`.

    It is removed in the end unless `finish` has moved it. `secret`: only the daemon may read it. Raises RunnerdError.
    """
    folder, name = os.path.split(path)
    draft = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunnerdError(f"cannot write {path}: {error.strerror}{_advise(error)}") from None
    try:
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                _set_access(file.fileno(), os.stat(folder), secret=secret)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunnerdError(f"cannot write {path}: {error.strerror}") from None
        yield draft
    finally:
        if os.path.lexists(draft):
            os.unlink(draft)


def finish(draft: str, path: str, *, replace: bool = False) -> None:
    """Give the draft its name; with `replace` in the place of another file. Raises Exists and RunnerdError."""
    try:
        if replace:
            os.replace(draft, path)
        else:
            os.link(draft, path)  # not rename, which would replace
            os.unlink(draft)
        descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except FileExistsError:
        raise Exists(f"{path} exists already") from None
    except OSError as error:
        raise RunnerdError(f"cannot write {path}: {error.strerror}") from None


def keep_old(path: str) -> list[str]:
    """Give the file that is about to be replaced a second name with .old; return that, nothing without a file.

    A link and no copy: it has the access of the file at any moment. Raises RunnerdError.
    """
    old = f"{path}.old"
    try:
        if not os.path.lexists(path):
            return []
        with suppress(FileNotFoundError):
            os.unlink(f"{old}.new")  # of one that was killed
        os.link(path, f"{old}.new", follow_symlinks=False)
        os.replace(f"{old}.new", old)
        with suppress(FileNotFoundError):  # both are names of one file: then rename(2) does nothing
            os.unlink(f"{old}.new")
    except OSError as error:
        raise RunnerdError(f"cannot keep {path} as {old}: {error.strerror}; nothing was replaced") from None
    return [old]


def _set_access(descriptor: int, folder: os.stat_result, *, secret: bool) -> None:
    """Let those read the file that can read the directory: with `secret` the daemon's group only."""
    group = folder.st_gid
    mode = 0o644 if folder.st_mode & stat.S_IROTH else 0o640 if folder.st_mode & stat.S_IRGRP else 0o600
    if secret:
        service = _find_service_group() if os.geteuid() == 0 else None
        mode, group = (0o600, group) if service is None else (0o640, service)
    if os.geteuid() == 0:
        os.fchown(descriptor, folder.st_uid, group)
    os.fchmod(descriptor, mode)


def _find_service_group() -> int | None:
    try:
        return pwd.getpwnam(_DAEMON).pw_gid
    except KeyError:
        return None


def _advise(error: OSError) -> str:
    if not isinstance(error, PermissionError):
        return ""
    return "; run it as root (sudo), or name a directory of your own"
