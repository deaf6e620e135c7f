"""Turn a forked child of the spawner into the run's process: session, signals, user, files, limits, directory, exec.

Runs between fork and exec only, in a process with one thread. Every setting is set explicitly, so that none is
inherited by accident. A step that fails raises `SetupFailed`, with its stage and one sentence an administrator can act
on.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import time

from runnerd.spawner.cgroups.limits import make_rlimits
from runnerd.spawner.child.account import Privileges, SetupFailed, find_account, switch_to
from runnerd.spawner.child.failures import describe_failed_chdir, describe_failed_exec, describe_failed_mkdir
from runnerd.spawner.child.files import RESULT_FD, open_files
from runnerd.spawner.child.inherited import close_all_but, reset_signals
from runnerd.spawner.io.messages import Launch
from runnerd.spawner.proc.processes import become_subreaper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

EXECUTE_AHEAD_MAX_S = 1.0


def run_child(
    launch: Launch, privileges: Privileges, release_fd: int, status_fd: int, channel_fd: int | None
) -> NoReturn:
    """Set the child up, wait for the release, execute the run's program, with `channel_fd` as its descriptor 3.

    Never returns and never raises: the child would go on in the spawner's own loop.
    """
    try:
        signal.set_wakeup_fd(-1)  # or a signal to the child would wake the spawner, by the pipe they share
        keep = (release_fd, status_fd) if channel_fd is None else (release_fd, status_fd, channel_fd)
        release_fd, status_fd, *channel_fds = close_all_but(*keep)
        _set_up(launch, privileges)
        for fd in channel_fds:
            os.dup2(fd, RESULT_FD)  # inheritable, as the one in `keep` is not
        if not os.read(release_fd, 1):
            os._exit(0)  # the spawner is gone, and may not have written our identity to disk: no program may run
        _wait_until(launch.execute_at_s)
        _execute_program(launch)
    except SetupFailed as failure:
        _report(status_fd, failure)
    except BaseException as error:
        _report(status_fd, SetupFailed("setup", f"cannot start: {type(error).__name__}: {error}"))
    finally:
        os._exit(127)


def _wait_until(at_s: float | None) -> None:
    """Wait until this Unix time, for EXECUTE_AHEAD_MAX_S at most: a clock that was set back may say years."""
    if at_s is None:
        return
    last_s = time.monotonic() + EXECUTE_AHEAD_MAX_S
    while (left_s := min(at_s - time.time(), last_s - time.monotonic())) > 0:
        time.sleep(left_s)


def _report(status_fd: int, failure: SetupFailed) -> None:
    line = f"{failure.stage}\n{failure.errno or ''}\n{failure}"
    os.write(status_fd, line.encode("utf-8", "backslashreplace")[:4096])


def _set_up(launch: Launch, privileges: Privileges) -> None:
    os.setsid()
    if not launch.forks:  # whose forks are to become children of the spawner
        become_subreaper()  # orphans among the leader's descendants stay below the leader as long as it lives
    reset_signals()
    account = find_account(launch, privileges)
    os.umask(0o027)
    open_files(launch, privileges.owner if privileges.root else None)
    _reset_oom_score()
    # RLIMIT_NPROC counts all processes of a user: no limit for root, and for the spawner's own user it counts others.
    _set_limits(launch, user_counts=privileges.root and account is not None and account.uid != 0)
    os.umask(0o022 if launch.umask is None else launch.umask)
    if account is not None and privileges.root:
        switch_to(account)


def _execute_program(launch: Launch) -> NoReturn:
    """Make and enter the working directory, and exec.

    The directory is made after the release only: a child that exits before would leave one, on which the next attempt
    to start the run would fail.
    """
    if not launch.make_directory:
        _enter_directory(launch)
        _exec(launch)
    _make_directory(launch)
    try:
        _enter_directory(launch)
        _exec(launch)
    finally:
        _remove_directory(launch)  # the exec failed, so no program ran in the directory


def _make_directory(launch: Launch) -> None:
    """Make the directory; one that exists is refused, because another user may have prepared it."""
    umask = os.umask(0)
    try:
        os.mkdir(launch.working_directory, 0o700)
    except OSError as error:
        raise SetupFailed("working-directory", describe_failed_mkdir(launch, error), error.errno) from None
    finally:
        os.umask(umask)


def _remove_directory(launch: Launch) -> None:
    try:
        os.rmdir(launch.working_directory)
    except OSError:
        return  # the reason why the run failed is reported; an empty directory stays


def _enter_directory(launch: Launch) -> None:
    try:
        os.chdir(launch.working_directory)
    except OSError as error:
        raise SetupFailed("working-directory", describe_failed_chdir(launch, error), error.errno) from None


def _reset_oom_score() -> None:
    """Set the OOM score to 0: the spawner may be protected from the OOM killer, a run must not be."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(fd, b"0")
        os.close(fd)
    except OSError:
        return  # not root: the score that the spawner was started with stays


def _set_limits(launch: Launch, *, user_counts: bool) -> None:
    for name, number, soft, hard in make_rlimits(launch, user_counts=user_counts):
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


def _exec(launch: Launch) -> NoReturn:
    """Execute argv; a program without a slash is searched on the run's own PATH. Raises SetupFailed."""
    program = launch.argv[0]
    tried, failed = program, OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for path in _list_candidates(program, launch.environment):
        try:
            os.execve(path, launch.argv, launch.environment)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and not os.path.lexists(path):
                continue  # the failure of a file that exists says more
            tried, failed = path, error
    raise SetupFailed("exec", describe_failed_exec(launch, tried, failed), failed.errno)


def _list_candidates(program: str, environment: dict[str, str]) -> list[str]:
    if "/" in program:
        return [program]
    path = environment.get("PATH", os.defpath)
    return [os.path.join(directory, program) for directory in path.split(":") if directory]
