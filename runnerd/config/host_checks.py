"""Checks one run: section against this host: its files, directories, interpreter, user and group.

Invariants: only environment files are opened, because the daemon itself reads them at each start; each path and name
is looked up once, within a time limit. A path that the daemon may not see is not a problem when the flow runs as
another user, who may.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from runnerd.config.environment_file import ENVIRONMENT_FILE_MAX_BYTES, parse_environment_file
from runnerd.config.files import read_text
from runnerd.config.sections import Flaws, Values
from runnerd.config.yaml_nodes import List, Map
from runnerd.core.errors import ConfigError
from runnerd.core.place import Json, Place, Problem
from runnerd.core.settings import RunSettings
from runnerd.core.units import format_size
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.spawner.child.users import AllowedUsers

_NO_GROUP = (
    "there is no group {!r} on this host, so this permits nothing to anybody; create the group (groupadd), or correct"
    " the name"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something on this host that prevents a flow from starting; `key` is a field of RunSettings, or `entrypoint`."""

    key: str
    message: str


class HostChecks:
    """Checks run settings against this host; a new one for each load, because files come and go.

    `users` are those as whom the spawner may start flows, None where that is unknown.
    """

    def __init__(self, calls: BoundedCalls | None = None, *, users: AllowedUsers | None = None) -> None:
        self._calls = calls or BoundedCalls()
        self._allowed = users
        self._me = os.geteuid()
        self._modes: dict[str, int | OSError] = {}
        self._users: dict[str, int | None] = {}
        self._groups: dict[str, bool] = {}
        self._environment_files: dict[str, str | None] = {}

    def check(
        self,
        run: RunSettings,
        values: Values,
        flaws: Flaws,
        *,
        otherwise: Place,
        entrypoint: str | None = None,
        imports: bool = True,
    ) -> None:
        """Add to `flaws` what prevents a flow with these settings from starting on this host.

        A flaw's place is that of the setting in `values`, else `otherwise`. `imports`: the interpreter is used.
        """
        for finding in self._find_all(run, entrypoint, imports=imports):
            flaws.add(("run", finding.key), finding.message, values.places.get(finding.key) or otherwise)

    def check_main(self, main: Map | None) -> list[Problem]:
        """List what runnerd.yaml names in `control:` and `notices:` that is not there."""
        return [*self.check_control(main), *(self.check_notices(main) if main is not None else ())]

    def check_control(self, main: Map | None) -> list[Problem]:
        """List the groups of `control:` that do not exist: no problem, a directory service may have them later."""
        control = main.get("control") if main is not None else None
        if not isinstance(control, Map):
            return []
        named = [(key, index, name) for key, names in control.items() if isinstance(names, List)
                 for index, name in enumerate(names) if isinstance(name, str)]  # fmt: skip
        return [
            Problem(message=f"control.{key}[{index}]: {_NO_GROUP.format(name)}", place=control[key].item_place(index))
            for key, index, name in named
            if not self._group_exists(name)
        ]

    def check_notices(self, node: Map) -> list[Problem]:
        """List the commands of the `notices:` of a file or deployment that are absent, before a run's end shows it.

        No flaw: flows can run without.
        """
        notices = node.get("notices")
        events = notices.items() if isinstance(notices, Map) else ()
        found = [(f"notices.{event}[{index}]", one) for event, targets in events if isinstance(targets, List)
                 for index, one in enumerate(targets) if isinstance(one, Map)]  # fmt: skip
        return [
            Problem(message=f"{where}.command {path}: {wrong}", place=one.value_place("command"))
            for where, one in found
            if (path := _absolute_program(one.get("command"))) is not None
            and (wrong := self._check_file(path, os.X_OK, False)) is not None
        ]

    def _find_all(self, run: RunSettings, entrypoint: str | None, *, imports: bool) -> Iterator[Finding]:
        yield from self._check_identity(run)
        denied_matters = self._find_uid_of_run(run) == self._me
        if "/" in run.python and imports:
            yield from self._check_interpreter(run.python, denied_matters)
        directory = self._check_directory(run.working_directory, denied_matters)
        if directory is not None:
            yield Finding("working_directory", f"run.working_directory {run.working_directory}: {directory}")
        elif entrypoint is not None:
            yield from self._check_code(run.working_directory, entrypoint, denied_matters)
        for key, command in [*(("before", one) for one in run.before), *(("after", one) for one in run.after)]:
            wrong = self._check_file(command[0], os.X_OK, denied_matters) if "/" in command[0] else None
            if wrong:
                yield Finding(key, f"run.{key} {command[0]}: {wrong}")
        if run.environment_file is not None:
            wrong = self._check_environment_file(run.environment_file)
            if wrong:
                yield Finding("environment_file", f"run.environment_file {run.environment_file}: {wrong}")

    def _check_identity(self, run: RunSettings) -> Iterator[Finding]:
        if run.user is not None and self._find_uid(run.user) is None:
            yield Finding("user", f"run.user {run.user}: no such user on this host")
        else:
            yield from self._check_allowed(run.user)
        if run.group is not None and not self._group_exists(run.group):
            yield Finding("group", f"run.group {run.group}: no such group on this host")

    def _check_allowed(self, user: str | None) -> Iterator[Finding]:
        if self._allowed is None:
            return
        refused = self._allowed.refuse_name(user)
        if refused is None and user is not None:
            refused = self._allowed.refuse_account(user, self._find_uid(user) or 0)
        if refused is not None:
            words = refused.removeprefix("cannot start: ")
            yield Finding("user", f"run.user{'' if user is None else f' {user}'}: {words}")

    def _check_interpreter(self, python: str, denied_matters: bool) -> Iterator[Finding]:
        wrong = self._check_file(python, os.X_OK, denied_matters)
        if wrong:
            yield Finding("python", f"run.python {python}: {wrong}")

    def _check_code(self, directory: str, entrypoint: str, denied_matters: bool) -> Iterator[Finding]:
        path = entrypoint.rpartition(":")[0]
        if not path.endswith(".py"):
            return  # a module: only the flow's own interpreter can find it
        wrong = self._check_file(os.path.join(directory, path), os.R_OK, denied_matters)
        if wrong:
            where = "" if os.path.isabs(path) else f" under {directory}"
            yield Finding("entrypoint", f"entrypoint {path}: {wrong}{where}")

    def _check_environment_file(self, path: str) -> str | None:
        if path not in self._environment_files:
            wrong = self._check_file(path, os.R_OK, True)
            self._environment_files[path] = wrong or self._find_syntax_error(path)
        return self._environment_files[path]

    # --- users ---

    def _find_uid_of_run(self, run: RunSettings) -> int | None:
        return self._me if run.user is None else self._find_uid(run.user)

    def _find_uid(self, user: str) -> int | None:
        if user not in self._users:
            self._users[user] = self._read_uid(user)
        return self._users[user]

    @staticmethod
    def _read_uid(user: str) -> int | None:
        try:
            return pwd.getpwnam(user).pw_uid
        except (KeyError, ValueError):
            return None

    def _group_exists(self, group: str) -> bool:
        if group not in self._groups:
            try:
                grp.getgrnam(group)
                self._groups[group] = True
            except (KeyError, ValueError):
                self._groups[group] = False
        return self._groups[group]

    # --- paths ---

    def _read_mode(self, path: str) -> int | OSError:
        if path not in self._modes:
            try:
                mode = self._calls.wait(os.path.dirname(path), lambda: os.stat(path).st_mode)
            except OSError as error:
                self._modes[path] = error
            else:
                self._modes[path] = _hang(mode) if isinstance(mode, Unanswered) else mode
        return self._modes[path]

    def _check_file(self, path: str, access: int, denied_matters: bool) -> str | None:
        mode = self._read_mode(path)
        if isinstance(mode, OSError):
            return _describe_absence(mode, "no such file", denied_matters)
        if not stat.S_ISREG(mode):
            return "is a directory, not a file" if stat.S_ISDIR(mode) else "is not a regular file"
        if denied_matters and not self._may(path, access):
            return "is not executable" if access == os.X_OK else "cannot be read; check its mode and owner"
        return "is not executable" if access == os.X_OK and not mode & 0o111 else None

    def _check_directory(self, path: str, denied_matters: bool) -> str | None:
        mode = self._read_mode(path)
        if isinstance(mode, OSError):
            return _describe_absence(mode, "no such directory", denied_matters)
        if not stat.S_ISDIR(mode):
            return "is not a directory"
        if denied_matters and not self._may(path, os.X_OK):
            return "cannot be entered; check its mode and owner"
        return None

    def _may(self, path: str, access: int) -> bool:
        return self._calls.wait(os.path.dirname(path), lambda: os.access(path, access)) is True

    def _find_syntax_error(self, path: str) -> str | None:
        wrong = self._calls.wait(os.path.dirname(path), lambda: _find_syntax_error(path))
        return wrong.words if isinstance(wrong, Unanswered) else wrong


def _absolute_program(command: Json) -> str | None:
    program = command[0] if isinstance(command, list) and command else None
    return program if isinstance(program, str) and os.path.isabs(program) else None


def _describe_absence(error: OSError, absent: str, denied_matters: bool) -> str | None:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return absent
    if isinstance(error, PermissionError):
        return "permission denied; check the modes of the directories above it" if denied_matters else None
    return error.strerror or str(error)


def _hang(unanswered: Unanswered) -> OSError:
    return OSError(errno.ETIMEDOUT, unanswered.words)


def _find_syntax_error(path: str) -> str | None:
    try:
        text = read_text(path)
    except FileNotFoundError:
        return "no such file"
    except ConfigError as error:
        return "; ".join(problem.message for problem in error.problems)
    if len(text.encode()) > ENVIRONMENT_FILE_MAX_BYTES:
        return f"is larger than {format_size(ENVIRONMENT_FILE_MAX_BYTES)}"
    try:
        parse_environment_file(text, file=path)
    except ConfigError as error:
        return "; ".join(f"line {p.place.line}: {p.message}" for p in error.problems if p.place)
    return None
