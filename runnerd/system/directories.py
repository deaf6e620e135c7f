"""The daemon's directories: the files and folders inside them, making them, and the lock on the state directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import IO

from runnerd.core.errors import RunnerdError
from runnerd.system.paths import Paths


def runs_dir(paths: Paths) -> str:
    """Return the folder of the runs' output files."""
    return os.path.join(paths.log, "runs")


def own_folders(paths: Paths) -> tuple[str, ...]:
    """Return the folders that the daemon itself cannot do without."""
    folders = (paths.config, paths.runtime, paths.state, paths.log, runs_dir(paths))
    return tuple(os.path.abspath(folder) for folder in (*folders, os.path.dirname(paths.spawner_socket)))


def work_dir(paths: Paths) -> str:
    """Return the folder into which inspections write: not in the runtime directory, which is in memory (/run)."""
    return os.path.join(paths.state, "inspect")


def sources_dir(paths: Paths) -> str:
    """Return the folder of the users' own folders with the code of deployments: not in `state`, which is closed."""
    return os.path.abspath(f"{paths.state}-sources")


def positions_path(paths: Paths) -> str:
    """Return the file that records how far each run's output was forwarded to systemd's journal."""
    return os.path.join(paths.state, "output-positions.json")


def journal_path(paths: Paths) -> str:
    """Return the SQLite file of the journal."""
    return os.path.join(paths.state, "journal.db")


def make_directories(paths: Paths) -> None:
    """Make the directories that are missing. Raises RunnerdError when one cannot be made or written to."""
    wanted = {
        paths.runtime: 0o755,
        **({} if paths.managed_spawner else {paths.spawner_dir: 0o755}),
        paths.state: 0o700,
        work_dir(paths): 0o700,
        paths.log: 0o750,
        runs_dir(paths): 0o750,
    }
    for path, mode in wanted.items():
        try:
            os.makedirs(path, mode=mode, exist_ok=True)
        except OSError as error:
            raise RunnerdError(
                f"cannot make the directory {path}: {error.strerror}; make it, or choose another with a --*-dir flag"
            ) from error
        if not os.access(path, os.W_OK | os.X_OK):
            if os.statvfs(path).f_flag & os.ST_RDONLY:
                raise RunnerdError(f"cannot write in {path}: it is mounted read-only; see findmnt -T {path}")
            raise RunnerdError(f"cannot write in {path}: permission denied; see ls -ld {path}")
    make_sources_dir(paths)


def make_sources_dir(paths: Paths) -> None:
    """Make the folder for the code of deployments, in which every user may make an own one and list none.

    Under systemd the package has made it; where it cannot be made, pulling says so.
    """
    path, is_root = sources_dir(paths), os.geteuid() == 0
    with contextlib.suppress(OSError):
        os.mkdir(path, 0o700)
        if is_root:
            os.chmod(path, 0o1733)  # whatever the umask


def clear_work_dir(paths: Paths) -> None:
    """Remove what inspections of a killed daemon left; nobody waits for it. The caller holds the lock on the state."""
    with os.scandir(work_dir(paths)) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # a leftover costs some room, and the next start tries again
                os.unlink(entry.path)


def lock_state(paths: Paths) -> IO[str]:
    """Lock the state directory until the returned file is closed. Raises RunnerdError when another runnerd holds it."""
    path = os.path.join(paths.state, "lock")
    try:
        file = open(path, "a+", encoding="ascii")
    except OSError as error:
        raise RunnerdError(f"cannot write {path}: {error.strerror}; see df {paths.state} and ls -l {path}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise RunnerdError(
            f"another runnerd (pid {holder or 'unknown'}) uses {paths.state}; stop it, or give this one a --state-dir"
        ) from None
    write_pid(file)
    return file


def write_pid(file: IO[str]) -> None:
    """Write this process's PID into the lock file."""
    with contextlib.suppress(OSError):  # a full disk must not prevent a start: the PID is for people, the flock locks
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"{os.getpid()}\n".encode())
