"""Describe why a run could not start: what is wrong with its program or directory, as seen by the run's user."""

from __future__ import annotations

import errno
import os

from runnerd.spawner.io.messages import Launch


def _who(launch: Launch) -> str:
    return f"user {launch.user}" if launch.user else "the spawner's user"


def describe_failed_chdir(launch: Launch, error: OSError) -> str:
    """Say why the run could not enter its working directory."""
    directory = launch.working_directory
    if error.errno == errno.ENOENT:
        return f"cannot start: working directory {directory} does not exist"
    if error.errno == errno.ENOTDIR:
        return f"cannot start: working directory {directory} is not a directory"
    if error.errno == errno.EACCES:
        return f"cannot start: working directory {directory}: permission denied for {_who(launch)}"
    return f"cannot start: working directory {directory}: {error.strerror}"


def describe_failed_mkdir(launch: Launch, error: OSError) -> str:
    """Say why the run's working directory could not be made."""
    directory = launch.working_directory
    parent = os.path.dirname(directory.rstrip("/"))
    causes = {
        errno.EEXIST: "the path exists already, and the run needs a new directory",
        errno.ENOENT: f"{parent} does not exist",
        errno.ENOTDIR: f"{parent} is not a directory",
        errno.EACCES: f"permission denied for {_who(launch)} in {parent}",
    }
    return f"cannot make the working directory {directory}: {causes.get(error.errno or 0, error.strerror)}"


def describe_failed_exec(launch: Launch, path: str, error: OSError) -> str:
    """Say why the run's program at `path` could not be executed."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"cannot start: {_describe_not_found(launch, path)}"
    if error.errno == errno.EACCES:
        return f"cannot start: {_describe_denied(launch, path)}"
    if error.errno == errno.ENOEXEC:
        return f"cannot start: {path} is not executable: neither a program for this machine nor a #! script"
    if error.errno == errno.E2BIG:
        return "cannot start: arguments and environment together are longer than the kernel allows"
    if error.errno == errno.EAGAIN:
        return f"cannot start: {_who(launch)} has as many processes as tasks_max or rlimits.nproc of the run allows"
    return f"cannot start: {path}: {error.strerror}"


def _describe_not_found(launch: Launch, path: str) -> str:
    if "/" not in path:
        return f"no such program {path} in PATH {launch.environment.get('PATH', os.defpath)}"
    if os.path.islink(path) and not os.path.exists(path):
        return f"no such interpreter {path}: it is a link to {os.path.realpath(path)}, which does not exist"
    if not os.path.exists(path):
        return f"no such interpreter {path}"
    interpreter = _read_shebang(path)
    if interpreter:
        return f"{path} is a script for {interpreter}, which does not exist"
    return f"{path} needs a program loader that is not installed"


def _describe_denied(launch: Launch, path: str) -> str:
    if not os.path.exists(path):
        return f"permission denied for {_who(launch)} on the way to {path}"
    if os.path.isdir(path):
        return f"{path} is a directory"
    if not os.access(path, os.X_OK):
        return f"{path} is not executable for {_who(launch)}"
    interpreter = _read_shebang(path)
    if interpreter:
        return f"{path} is a script for {interpreter}, which is not executable for {_who(launch)}"
    return f"{path}: permission denied for {_who(launch)} (is its file system mounted noexec?)"


def _read_shebang(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO would hold up the start for ever
        first = os.read(fd, 256).partition(b"\n")[0]
        os.close(fd)
    except OSError:
        return None
    if not first.startswith(b"#!") or not first[2:].split():
        return None
    return os.fsdecode(first[2:].split()[0])
