"""A flow for tests: `flow_child.py MODE [ARGUMENT...]`, standard library only, one line into ran.txt for each start.

It tells the API its states as Prefect's engine does. `go` is a file in its directory that a test makes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time


def tell(kind: str, **details: bool) -> None:
    """Propose a state without force, and take whatever answer comes."""
    host, _, port = os.environ["PREFECT_API_URL"].removeprefix("http://").removesuffix("/api").partition(":")
    body = json.dumps({"state": {"type": kind, "state_details": details}, "force": False})
    head = f"POST /api/flow_runs/{os.environ['PREFECT__FLOW_RUN_ID']}/set_state HTTP/1.1\r\nHost: {host}\r\n"
    with socket.create_connection((host, int(port))) as api:
        api.sendall(f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        while api.recv(65536):
            pass


def begin() -> None:
    """The flow's body has begun."""
    tell("RUNNING")
    with open("ran.txt", "a", encoding="ascii") as file:
        file.write(os.environ["PREFECT__FLOW_RUN_ID"] + "\n")


def wait_for_go() -> None:
    while not os.path.exists("go"):
        time.sleep(0.01)


def wait_for_ever() -> None:
    while True:
        signal.pause()


def complete() -> None:
    begin()
    tell("COMPLETED")


def hold() -> None:
    """Completes when it may."""
    begin()
    wait_for_go()
    tell("COMPLETED")


def exit_with() -> None:
    begin()
    sys.exit(int(sys.argv[2]))


def hold_and_exit() -> None:
    """Ends without a word to the API."""
    begin()
    wait_for_go()
    sys.exit(int(sys.argv[2]))


def die() -> None:
    begin()
    os.kill(os.getpid(), signal.SIGKILL)


def suspend() -> None:
    begin()
    tell("PAUSED", pause_reschedule=True)


def wait() -> None:
    """SIGTERM ends it."""
    begin()
    wait_for_ever()


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begin()
    wait_for_ever()


def cancelling() -> None:
    """Is cancelled by somebody as soon as it runs."""
    begin()
    tell("CANCELLING")
    wait_for_ever()


def silent() -> None:
    """Never gets as far as its body."""
    with open("started.txt", "a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    wait_for_ever()


def eat(*_: object) -> None:
    """Without end, in the cgroup it is given."""
    with open(f"{sys.argv[2]}/cgroup.procs", "w", encoding="ascii") as file:
        file.write("0")
    hold = []
    while True:
        hold.append(bytearray(2**20))


def eat_at_once() -> None:
    begin()
    eat()


def eat_when_asked() -> None:
    """SIGTERM makes it."""
    signal.signal(signal.SIGTERM, eat)
    begin()
    wait_for_ever()


MODES = {
    "complete": complete,
    "hold": hold,
    "exit": exit_with,
    "hold-and-exit": hold_and_exit,
    "die": die,
    "suspend": suspend,
    "wait": wait,
    "stubborn": stubborn,
    "cancelling": cancelling,
    "silent": silent,
    "eat": eat_at_once,
    "eat-when-asked": eat_when_asked,
}

if __name__ == "__main__":
    MODES[sys.argv[1]]()
