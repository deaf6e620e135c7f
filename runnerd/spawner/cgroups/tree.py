"""A cgroup of its own for each run, `run-KEY.ATTEMPT`, where a part of the host's cgroup v2 tree is delegated.

* The names are how a later spawner finds them again.
* With a unit for runs alone (`--cgroup-unit`) they are in its cgroup, with the controllers that bound them. Else they
  are in our own unit's, and we in its child `spawner`, without a controller: with one, processes may only be in leaves,
  and systemd starts the next spawner in the unit's cgroup itself; the kernel refuses that (EBUSY) while a run lives.
* Nothing here is needed: without delegation, or when a step fails, a run goes without and is swept as any other.
"""

from __future__ import annotations

import os

from runnerd.spawner.cgroups.delegation import SPAWNER, NotDelegated, find_beside, find_own
from runnerd.spawner.cgroups.run_cgroup import Cgroup, lines, write
from runnerd.spawner.io.log import log

_KEEPER = "keeper"
CONTROLLERS = ("memory", "cpu", "pids")


class Cgroups:
    """Those of all runs. `root` is where they are made, None where nothing is delegated; `older` where earlier spawners
    may have made theirs. `why` says why there are none, or why they bound nothing.
    """

    def __init__(self, *, root: str | None, why: str | None = None, older: tuple[str, ...] = ()) -> None:
        self.root = root
        self.why = why
        self._roots = (*((root,) if root is not None else ()), *older)
        self._bounding = root is not None and why is None

    @classmethod
    def take(cls, unit: str | None) -> Cgroups:
        """In the cgroup of that unit, or else in what is delegated to us, where we then go into our place."""
        try:
            if unit is not None:
                return cls(root=find_beside(unit), older=_own_if_any())
            why = "runs are in the spawner's own cgroup, where no controller can be enabled (--cgroup-unit)"
        except (NotDelegated, OSError) as error:
            why = _words(error)
        try:
            root = find_own()
            _enter(os.path.join(root, SPAWNER))
        except (NotDelegated, OSError) as error:
            return cls(root=None, why=_words(error) if unit is None else why)
        return cls(root=root, why=why)

    def controllers(self) -> set[str]:
        """Those that bound the runs; enabled here, again if somebody made the unit's cgroup anew."""
        if self.root is None or not self._bounding:
            return set()
        try:
            wanted = set(CONTROLLERS) & _words_in(os.path.join(self.root, "cgroup.controllers"))
            enabled = wanted & _words_in(os.path.join(self.root, "cgroup.subtree_control"))
        except OSError as error:
            log(f"cannot read the controllers of {self.root}: {error.strerror}")
            return set()
        if enabled != wanted:
            _make_way(self.root)
        return enabled | {name for name in wanted - enabled if _enable(self.root, name)}

    def make(self, key: str, attempt: int) -> Cgroup | None:
        """A new one for a run; None where the run has to go without."""
        if self.root is None:
            return None
        directory = os.path.join(self.root, _name(key, attempt))
        try:
            os.mkdir(directory)
            os.chmod(directory, 0o755)  # whatever our umask: a run may know its limits
        except FileExistsError:
            pass  # an earlier spawner died between this and the run's record
        except OSError as error:
            log(f"key={key} attempt={attempt} cannot make cgroup {directory}: {error.strerror}; going without")
            return None
        return Cgroup(directory)

    def find(self, key: str, attempt: int) -> Cgroup | None:
        """That of a run an earlier spawner started."""
        places = (os.path.join(root, _name(key, attempt)) for root in self._roots)
        return next((Cgroup(directory) for directory in places if os.path.isdir(directory)), None)

    def clean(self, *, keep: set[str]) -> None:
        """Remove those in which nobody is left; what lives is not ended for want of a record."""
        for root in self._roots:
            try:
                _clean(root, keep)
            except OSError as error:
                log(f"cannot remove old cgroups in {root}: {error.strerror}")


def _make_way(root: str) -> None:
    """Out of the unit's cgroup itself, where with controllers nobody may be, with the process that keeps the unit up.

    systemd removes the cgroup of a unit that has no process, also where the unit stays active.
    """
    try:
        # One that we cannot see reads as 0, which to write would move ourselves.
        pids = [pid for pid in lines(os.path.join(root, "cgroup.procs")) if pid != "0"]
        keeper = os.path.join(root, _KEEPER)
        if pids and not os.path.isdir(keeper):
            os.mkdir(keeper, 0o755)
        for pid in pids:
            write(os.path.join(keeper, "cgroup.procs"), pid)
    except OSError as error:
        log(f"cannot make way in {root}: {error.strerror}")


def _enable(root: str, controller: str) -> bool:
    try:
        write(os.path.join(root, "cgroup.subtree_control"), f"+{controller}")
    except OSError as error:
        log(f"cannot enable controller {controller} in {root}: {error.strerror}")
        return False
    return True


def _name(key: str, attempt: int) -> str:
    return f"run-{key}.{attempt}"


def _clean(root: str, keep: set[str]) -> None:
    for name in os.listdir(root):
        directory = os.path.join(root, name)
        if name.startswith("run-") and directory not in keep and not Cgroup(directory).remove():
            log(f"left cgroup {directory} as it is: a process lives there, and no run is known that it is of")


def _words_in(path: str) -> set[str]:
    return {word for line in lines(path) for word in line.split()}


def _words(error: Exception) -> str:
    return (
        f"cannot use {error.filename or 'the cgroup'}: {error.strerror}" if isinstance(error, OSError) else str(error)
    )


def _own_if_any() -> tuple[str, ...]:
    try:
        return (find_own(),)
    except (NotDelegated, OSError):
        return ()


def _enter(directory: str) -> None:
    """Raises OSError, with nothing left behind."""
    made = not os.path.isdir(directory)
    if made:
        os.mkdir(directory, 0o755)
    try:
        write(os.path.join(directory, "cgroup.procs"), "0")
    except OSError:
        if made:
            os.rmdir(directory)
        raise
