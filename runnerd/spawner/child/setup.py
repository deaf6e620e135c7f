"""What a forked child does before it becomes the run: from our copy to a clean process, then exec.

Runs between fork and exec only, in a process with one thread. Everything is set anew, nothing is inherited by chance.
Each step that can fail says so as `SetupFailed`: its stage and one sentence an administrator can act on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal

from runnerd.spawner.cgroups.limits import rlimits
from runnerd.spawner.child.account import SetupFailed, Users, become, find_account
from runnerd.spawner.child.failures import why_no_directory, why_no_exec, why_not_made
from runnerd.spawner.child.files import RESULT_FD, open_files
from runnerd.spawner.io.messages import Launch
from runnerd.spawner.proc.processes import become_subreaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_LOWEST_PIPE_FD = 10


class Host:
    """What of the spawner itself matters to a child: whether it is root, who owns its files, who it may be."""

    __slots__ = ("owner", "root", "users")

    def __init__(self, *, owner: int | None, users: Users) -> None:
        self.root = os.geteuid() == 0
        self.owner = owner
        self.users = users


def run_child(launch: Launch, host: Host, go_fd: int, status_fd: int) -> NoReturn:
    """The child's whole life up to exec. Never returns and never raises: past it is the parent's own loop."""
    try:
        signal.set_wakeup_fd(-1)  # or a signal to us would wake, and end, the parent
        go_fd, status_fd = _close_all_but(go_fd, status_fd)
        _set_up(launch, host)
        if not os.read(go_fd, 1):
            os._exit(0)  # the parent is gone, and our identity may not be on disk: nothing may run
        _become_the_run(launch)
    except SetupFailed as failure:
        _tell(status_fd, failure)
    except BaseException as error:
        _tell(status_fd, SetupFailed("setup", f"cannot start: {type(error).__name__}: {error}"))
    finally:
        os._exit(127)


def _tell(status_fd: int, failure: SetupFailed) -> None:
    line = f"{failure.stage}\n{failure.errno or ''}\n{failure}"
    os.write(status_fd, line.encode("utf-8", "backslashreplace")[:4096])


def _close_all_but(*pipes: int) -> list[int]:
    """Moves the pipes out of the way of 0 to 3 and closes everything else we got from the parent."""
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_PIPE_FD) for fd in pipes]
    low = RESULT_FD
    for fd in sorted(kept):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
    return kept


def _set_up(launch: Launch, host: Host) -> None:
    os.setsid()
    become_subreaper()  # for its own descendants: as long as it lives, none of them gets out of its sight
    _reset_signals()
    account = find_account(launch, host.users)
    os.umask(0o027)
    open_files(launch, host.owner if host.root else None)
    _reset_oom_score()
    # Of who may exceed it anyway, or whose processes include the spawner's own, a count would be none of the run's.
    _set_bounds(launch, user_counts=host.root and account is not None and account.uid != 0)
    os.umask(0o022 if launch.umask is None else launch.umask)
    if account is not None and host.root:
        become(account)


def _become_the_run(launch: Launch) -> NoReturn:
    """Only past the go-pipe: a child that gives up there leaves no directory in the way of the one that is next."""
    if not launch.make_directory:
        _enter_directory(launch)
        _execute(launch)
    _make_directory(launch)
    try:
        _enter_directory(launch)
        _execute(launch)
    finally:
        _remove_directory(launch)  # we are still here, so nothing ran in it


def _make_directory(launch: Launch) -> None:
    """What is there already may be another's, and a trap."""
    umask = os.umask(0)
    try:
        os.mkdir(launch.working_directory, 0o700)
    except OSError as error:
        raise SetupFailed("working-directory", why_not_made(launch, error), error.errno) from None
    finally:
        os.umask(umask)


def _remove_directory(launch: Launch) -> None:
    try:
        os.rmdir(launch.working_directory)
    except OSError:
        return  # why the run failed is what matters; an empty directory is left


def _enter_directory(launch: Launch) -> None:
    try:
        os.chdir(launch.working_directory)
    except OSError as error:
        raise SetupFailed("working-directory", why_no_directory(launch, error), error.errno) from None


def _reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _reset_oom_score() -> None:
    """The spawner may be shielded from the kernel's memory killer; a run must not be."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)
    except OSError:
        return  # best effort: not root, and somebody shielded us on purpose


def _set_bounds(launch: Launch, *, user_counts: bool) -> None:
    for name, number, soft, hard in rlimits(launch, user_counts=user_counts):
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError) as error:
            raise SetupFailed("rlimits", f"cannot set limit {name} to {soft}:{hard}: {error}") from None
    if launch.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, launch.nice)
        except OSError as error:
            message = f"cannot set nice to {launch.nice}: {error.strerror}"
            raise SetupFailed("nice", message, error.errno) from None


def _execute(launch: Launch) -> NoReturn:
    """Exec argv as it is; the program is a path, or is looked for on the run's own PATH."""
    program = launch.argv[0]
    tried, failed = program, OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in _candidates(program, launch.environment):
        try:
            os.execve(path, launch.argv, launch.environment)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and not os.path.lexists(path):
                continue  # keep an earlier, more telling failure
            tried, failed = path, error
    raise SetupFailed("exec", why_no_exec(launch, tried, failed), failed.errno)


def _candidates(program: str, environment: dict[str, str]) -> list[str]:
    if "/" in program:
        return [program]
    path = environment.get("PATH", os.defpath)
    return [os.path.join(directory, program) for directory in path.split(":") if directory]
