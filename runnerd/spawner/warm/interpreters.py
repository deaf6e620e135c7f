"""Keep the warm interpreters that this spawner has started: no run is forked of one that an earlier spawner started."""

from __future__ import annotations

import socket
from collections.abc import Callable

from runnerd.spawner.child.fork import Forker
from runnerd.spawner.io.loop import Loop
from runnerd.spawner.io.messages import Launch
from runnerd.spawner.proc.orphans import Orphans
from runnerd.spawner.warm.fork_request import Done
from runnerd.spawner.warm.interpreter import Interpreter, Warm

RunId = tuple[str, int]


class Interpreters:
    """The warm interpreters by the key and attempt of their records."""

    def __init__(self, *, loop: Loop, forker: Forker, orphans: Orphans) -> None:
        self._loop = loop
        self._forker = forker
        self._orphans = orphans
        self._all: dict[RunId, Interpreter] = {}

    def add(
        self,
        launch: Launch,
        sock: socket.socket,
        *,
        confined: bool,
        change: Callable[[Warm], None],
        give_up: Callable[[], None],
    ) -> None:
        """Add one that was just started, with the spawner's end of its channel; `confined`: it has a cgroup."""
        self._all[(launch.key, launch.attempt)] = Interpreter(
            launch,
            sock=sock,
            confined=confined,
            loop=self._loop,
            forker=self._forker,
            orphans=self._orphans,
            change=change,
            give_up=give_up,
        )

    def __contains__(self, run: object) -> bool:
        return run in self._all

    def on_started(self, run: RunId, pid: int) -> None:
        """Note that the process executes its program, if it is an interpreter."""
        if run in self._all:
            self._all[run].take_credentials(pid)

    def fork(self, of: RunId, launch: Launch, *, confined: bool, done: Done) -> str | None:
        """Have a run forked, as `Interpreter.fork` says."""
        interpreter = self._all.get(of)
        if interpreter is None:
            return f"warm interpreter {of[0]} attempt {of[1]} does not run"
        return interpreter.fork(launch, confined=confined, done=done)

    def drop(self, run: RunId) -> None:
        """Forget a process that has exited, if it is an interpreter."""
        interpreter = self._all.pop(run, None)
        if interpreter is not None:
            interpreter.close()
