"""Talk to one warm interpreter: what it says of itself, and the forks that are under way.

An interpreter that sends anything unexpected, or does not answer, is given up: its requests fail, so that their runs
start cold, and `give_up` is called with the reason.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from functools import partial

from runnerd.spawner.child.fork import Child, Forker
from runnerd.spawner.io.loop import READ, Loop
from runnerd.spawner.io.messages import Fields, Launch, RequestRefused
from runnerd.spawner.proc.orphans import Orphans
from runnerd.spawner.warm.acceptance import Credentials
from runnerd.spawner.warm.channel import Garbage, receive
from runnerd.spawner.warm.commands import Origin
from runnerd.spawner.warm.fork_request import Done, ForkRequest

IMPORT_TIMEOUT_S = 300.0
_EXIT_TIMEOUT_S = 5.0  # of an interpreter that has said that it failed, or closed its socket
_UNDER_WAY_MAX = 32  # requests
_PROBLEM_MAX_CHARACTERS = 500

Warm = dict[str, object]


class Interpreter:
    """One warm interpreter; `change` is called with each new `warm` of its record (processes/protocol.py)."""

    def __init__(
        self,
        launch: Launch,
        *,
        sock: socket.socket,
        confined: bool,
        loop: Loop,
        forker: Forker,
        orphans: Orphans,
        change: Callable[[Warm], None],
        give_up: Callable[[], None],
    ) -> None:
        self.name = f"warm interpreter {launch.key} attempt {launch.attempt}"
        self._origin = Origin(launch)
        self._sock: socket.socket | None = sock
        self._confined = confined
        self._loop = loop
        self._forker = forker
        self._orphans = orphans
        self._change = change
        self._give_up = give_up
        self._credentials: Credentials | None = None
        self._ready = False
        self._failed = False
        self._last_number = 0
        self._requests: dict[int, ForkRequest] = {}  # those that are not over
        self._unanswered: set[int] = set()  # requests that may still be answered, those that were given up included
        loop.watch_fd(sock.fileno(), READ, self._on_message)
        self._set_timer(IMPORT_TIMEOUT_S, f"its imports took more than {IMPORT_TIMEOUT_S:g} s")

    def take_credentials(self, pid: int) -> None:
        """Record as whom the interpreter runs, before it has imported anything. Its forks must be the same."""
        try:
            self._credentials = Credentials(pid)
        except OSError:
            return  # it has ended

    def _set_timer(self, timeout_s: float, problem: str) -> None:
        self._loop.set_timer(self, time.monotonic() + timeout_s, partial(self._fail, problem))

    # --- forks ---------------------------------------------------------------------------------------------------

    def fork(self, launch: Launch, *, confined: bool, done: Done) -> str | None:
        """Have a run forked; `done` is called later. Returns why that is not possible, and `done` is not called then.

        `confined`: the run has a cgroup.
        """
        if self._sock is None or self._failed or not self._ready or self._credentials is None:
            return f"{self.name} is not ready"
        refused = self._origin.refuse(launch)
        if refused is not None:
            return f"{self.name}: {refused}"
        if self._confined and not confined:
            return f"{self.name} has a cgroup, and the run has none to leave it for"
        if len(self._requests) >= _UNDER_WAY_MAX:
            return f"{self.name} has {_UNDER_WAY_MAX} forks under way"
        self._last_number = number = self._last_number + 1
        request = ForkRequest(
            launch,
            loop=self._loop,
            forker=self._forker,
            orphans=self._orphans,
            like=self._credentials,
            done=partial(self._on_done, number, done),
        )
        self._unanswered.add(number)  # before: what fails may have been sent
        try:
            request.begin(number, self._sock.fileno())
        except OSError as error:
            return f"{self.name} cannot be asked to fork: {error.strerror}"
        self._requests[number] = request
        return None

    def _on_done(self, number: int, done: Done, child: Child | None, problem: str) -> None:
        request = self._requests.pop(number)
        done(child, f"{self.name}: {problem}" if problem else "")
        if request.unanswered:
            self._fail("it did not answer a request to fork in time")

    # --- messages ------------------------------------------------------------------------------------------------

    def _on_message(self) -> None:
        if self._sock is None:
            return
        try:
            message = receive(self._sock)
            if message is not None:
                self._handle(message)
        except EOFError:
            self._close_socket()
            self._fail_requests("it has ended")
            if not self._failed:
                self._set_timer(_EXIT_TIMEOUT_S, "it has closed its socket")
        except RequestRefused as refusal:
            self._fail(f"it has sent a message that is wrong: {refusal}")
        except Garbage as garbage:
            self._fail(str(garbage))
        except OSError as error:
            self._fail(f"its socket cannot be read: {error.strerror}")

    def _handle(self, message: Fields) -> None:
        if message.raw("ready") is not None and not self._ready:
            self._on_ready(message.inner("ready"))
        elif message.raw("failed") is not None and not self._ready:
            problem = message.required_text("failed")
            if not problem.isprintable() or len(problem) > _PROBLEM_MAX_CHARACTERS:
                raise Garbage("it has failed, and has sent a reason that is no short line")
            self._end_with(problem)
            self._set_timer(_EXIT_TIMEOUT_S, problem)
        else:
            self._on_answer(message)

    def _on_ready(self, said: Fields) -> None:
        warm: Warm = {
            "state": "ready",
            "python": said.required_name("python"),
            "prefect": said.required_name("prefect"),
            "import_s": said.seconds("import_s"),
        }
        self._ready = True
        self._loop.cancel_timer(self)
        self._change(warm)

    def _on_answer(self, message: Fields) -> None:
        forked, refused = message.integer("forked", 1, 2**62), message.integer("refused", 1, 2**62)
        number = forked if refused is None else refused
        if number not in self._unanswered:
            raise Garbage("it has sent an answer that was not asked for")
        self._unanswered.discard(number)
        problem = message.name("why") or "it has refused to fork" if forked is None else None
        request = self._requests.get(number)
        if request is not None:
            request.on_answer(problem)

    # --- the end -------------------------------------------------------------------------------------------------

    def _end_with(self, problem: str) -> None:
        self._failed = True
        self._change({"state": "failed", "problem": problem})

    def _fail(self, problem: str) -> None:
        """Give the interpreter up: its socket is closed, and it is to be killed."""
        if not self._failed:
            self._end_with(problem)
        self.close()
        self._give_up()

    def close(self) -> None:
        """Close the socket, which ends an interpreter that has nothing else to do, and fail what is under way."""
        self._loop.cancel_timer(self)
        self._close_socket()
        self._fail_requests("it has ended")

    def _close_socket(self) -> None:
        if self._sock is not None:
            self._loop.unwatch_fd(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _fail_requests(self, problem: str) -> None:
        for request in list(self._requests.values()):
            request.fail(problem)
