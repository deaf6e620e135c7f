"""Make, find and remove the runs' cgroups, `run-KEY.ATTEMPT`, in a delegated part of the cgroup v2 tree.

* A later spawner finds a run's cgroup by its name.
* With a unit for runs only (`--cgroup-unit`) the cgroups are in that unit's, with the controllers for the limits. Else
  they are in that of the spawner's unit, without controllers, and the spawner is in `spawner` beside them. With a
  controller, processes may only be in leaves; but systemd starts the next spawner in the unit's cgroup itself, which
  the kernel would refuse (EBUSY) while a run lives.
* No run depends on a cgroup: without delegation, or when a step fails, a run starts without one, and its processes are
  found by descent.
"""

from __future__ import annotations

import os

from runnerd.spawner.cgroups.delegation import SPAWNER_CGROUP, NotDelegated, find_of_unit, find_own
from runnerd.spawner.cgroups.run_cgroup import RunCgroup, read_lines, write_file
from runnerd.spawner.io.log import log

_KEEPER_CGROUP = "keeper"
CONTROLLERS = ("memory", "cpu", "pids")


class CgroupTree:
    """The cgroups of all runs.

    `root` is the directory they are made in, None where none is delegated; `older` are those in which earlier spawners
    may have made cgroups. `why` says why runs get no cgroups, or cgroups without limits; None when they get both.
    """

    def __init__(self, *, root: str | None, why: str | None = None, older: tuple[str, ...] = ()) -> None:
        self.root = root
        self.why = why
        self._roots = (*((root,) if root is not None else ()), *older)
        self._has_limits = root is not None and why is None

    @classmethod
    def set_up(cls, unit: str | None) -> CgroupTree:
        """Use the cgroup of `unit`; or else the spawner's own, and move the spawner into `spawner` there."""
        try:
            if unit is not None:
                return cls(root=find_of_unit(unit), older=_find_own_if_any())
            why = "runs are in the spawner's own cgroup, where no controller can be enabled (--cgroup-unit)"
        except (NotDelegated, OSError) as error:
            why = _describe(error)
        try:
            root = find_own()
            _move_here(os.path.join(root, SPAWNER_CGROUP))
        except (NotDelegated, OSError) as error:
            return cls(root=None, why=_describe(error) if unit is None else why)
        return cls(root=root, why=why)

    def enable_controllers(self) -> set[str]:
        """Enable the controllers for the runs' limits, and again in a unit's new cgroup; return those enabled."""
        if self.root is None or not self._has_limits:
            return set()
        try:
            wanted = set(CONTROLLERS) & _read_words(os.path.join(self.root, "cgroup.controllers"))
            enabled = wanted & _read_words(os.path.join(self.root, "cgroup.subtree_control"))
        except OSError as error:
            log(f"cannot read the controllers of {self.root}: {error.strerror}")
            return set()
        if enabled != wanted:
            _empty_root(self.root)
        return enabled | {name for name in wanted - enabled if _enable(self.root, name)}

    def make(self, key: str, attempt: int) -> RunCgroup | None:
        """Make a run's cgroup; None where the run has to go without."""
        if self.root is None:
            return None
        directory = os.path.join(self.root, cgroup_name(key, attempt))
        try:
            os.mkdir(directory)
            os.chmod(directory, 0o755)  # regardless of the umask, so that a run can read its limits
        except FileExistsError:
            pass  # left by an earlier spawner that died before it wrote the run's record
        except OSError as error:
            log(f"key={key} attempt={attempt} cannot make cgroup {directory}: {error.strerror}; going without")
            return None
        return RunCgroup(directory)

    def find(self, key: str, attempt: int) -> RunCgroup | None:
        """Find the cgroup of a run that an earlier spawner started; None when there is none."""
        candidates = (os.path.join(root, cgroup_name(key, attempt)) for root in self._roots)
        return next((RunCgroup(directory) for directory in candidates if os.path.isdir(directory)), None)

    def remove_empty(self, *, keep: set[str]) -> None:
        """Remove the runs' cgroups, except those in `keep` and those with processes, which live on without a record."""
        for root in self._roots:
            try:
                _remove_empty_in(root, keep)
            except OSError as error:
                log(f"cannot remove old cgroups in {root}: {error.strerror}")


def _empty_root(root: str) -> None:
    """Move the processes of the unit's cgroup into `keeper` below: with controllers a cgroup may have none itself.

    The unit has one process, without which systemd would remove the cgroup even while the unit is active.
    """
    try:
        # A process outside our pid namespace reads as 0, and writing 0 would move ourselves.
        pids = [pid for pid in read_lines(os.path.join(root, "cgroup.procs")) if pid != "0"]
        keeper = os.path.join(root, _KEEPER_CGROUP)
        if pids and not os.path.isdir(keeper):
            os.mkdir(keeper, 0o755)
        for pid in pids:
            write_file(os.path.join(keeper, "cgroup.procs"), pid)
    except OSError as error:
        log(f"cannot move the processes of cgroup {root} into {_KEEPER_CGROUP}: {error.strerror}")


def _enable(root: str, controller: str) -> bool:
    try:
        write_file(os.path.join(root, "cgroup.subtree_control"), f"+{controller}")
    except OSError as error:
        log(f"cannot enable controller {controller} in {root}: {error.strerror}")
        return False
    return True


def cgroup_name(key: str, attempt: int) -> str:
    """Return the name of the cgroup of one attempt of a run."""
    return f"run-{key}.{attempt}"


def _remove_empty_in(root: str, keep: set[str]) -> None:
    for name in os.listdir(root):
        directory = os.path.join(root, name)
        if name.startswith("run-") and directory not in keep and not RunCgroup(directory).remove():
            log(f"cannot remove cgroup {directory}: a process of an unknown run lives there; leaving both alone")


def _read_words(path: str) -> set[str]:
    return {word for line in read_lines(path) for word in line.split()}


def _describe(error: Exception) -> str:
    return (
        f"cannot use {error.filename or 'the cgroup'}: {error.strerror}" if isinstance(error, OSError) else str(error)
    )


def _find_own_if_any() -> tuple[str, ...]:
    try:
        return (find_own(),)
    except (NotDelegated, OSError):
        return ()


def _move_here(directory: str) -> None:
    """Move this process into the cgroup, made if missing. Raises OSError, and leaves no new directory then."""
    made = not os.path.isdir(directory)
    if made:
        os.mkdir(directory, 0o755)
    try:
        write_file(os.path.join(directory, "cgroup.procs"), "0")
    except OSError:
        if made:
            os.rmdir(directory)
        raise
