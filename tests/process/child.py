"""What the tests of processes run: `child.py MODE [ARGUMENT...]`, standard library only.

Modes that stay alive print `ready` first. The `spawner-...` modes are spawners wired to fail at one exact step.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import time


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def wait_for_ever() -> None:
    say("ready")
    while True:
        signal.pause()


def facts() -> None:
    """Everything a process inherits or is given."""
    with open("/proc/self/environ", "rb") as file:
        environment = dict(item.split("=", 1) for item in file.read().decode().split("\0") if item)
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        oom_score_adj = int(file.read())
    umask = os.umask(0)
    fds = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            fds[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # the listing's own
    say(
        json.dumps(
            {
                "environment": environment,
                "uids": os.getresuid(),
                "gids": os.getresgid(),
                "groups": sorted(os.getgroups()),
                "umask": umask,
                "nice": os.getpriority(os.PRIO_PROCESS, 0),
                "directory": os.getcwd(),
                "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
                "core": resource.getrlimit(resource.RLIMIT_CORE),
                "pid": os.getpid(),
                "pgid": os.getpgid(0),
                "sid": os.getsid(0),
                "fds": fds,
                "oom_score_adj": oom_score_adj,
                "argv": sys.argv,
            }
        )
    )


def ignore_term() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_ever()


def count_term() -> None:
    """Says each SIGTERM, and stays."""
    signal.signal(signal.SIGTERM, lambda number, frame: say("asked"))
    wait_for_ever()


def stop_self() -> None:
    say("ready")
    os.kill(os.getpid(), signal.SIGSTOP)
    signal.pause()


def straggler() -> None:
    """Leaves behind one process in its group and one in a group of its own, both deaf to SIGTERM."""
    ready_r, ready_w = os.pipe()
    for own_group in (False, True):
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if own_group:
                os.setpgid(0, 0)
            os.write(ready_w, b"r")
            while True:
                signal.pause()
        say(str(pid))
    os.read(ready_r, 1)
    os.read(ready_r, 1)
    say("ready")
    if len(sys.argv) > 2:
        wait_for_ever()


def escape() -> None:
    """`escape NAME [and stay]`: leaves behind one in a session of its own, and a daemon as it should be.

    That is: of no parent, in a session that has lost its leader, with nothing open, nothing in its environment, and
    in another directory. Both are deaf to SIGTERM, as their maker is until they are there, and have NAME on their
    command line.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ready_r, ready_w = os.pipe()
    os.set_inheritable(ready_w, True)
    if os.fork() == 0:
        os.setsid()
        os.write(ready_w, b"r")
        hide()
    first = os.fork()
    if first == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            command = [sys.executable, "-I", "-S", __file__, "hide", sys.argv[2], str(ready_w)]
            os.execve(sys.executable, command, {})
        os._exit(0)
    os.waitpid(first, 0)
    for _ in range(2):
        os.read(ready_r, 1)
    say("ready")
    if len(sys.argv) > 3:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        while True:
            signal.pause()


def hide() -> None:
    if len(sys.argv) > 3 and sys.argv[1] == "hide":
        os.write(int(sys.argv[3]), b"r")
    os.closerange(0, 1024)
    while True:
        signal.pause()


def run_away() -> None:
    """`run-away NAME`: a process that is never the same for long: it forks, each time into a new session, and goes.

    Where a test fails to end it, it ends with the test's directory: nothing else would ever catch it.
    """
    if os.fork() == 0:
        say("ready")
        while os.path.exists(__file__):
            os.setsid()
            if os.fork() > 0:
                os._exit(0)
        os._exit(0)
    wait_for_ever()


def sibling() -> None:
    """`sibling NAME`: makes its parent's child of its child, as CLONE_PARENT does."""
    clone, clone_parent = {"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x8000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(clone, clone_parent | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        hide()
    wait_for_ever()


HELLO = b"\x00PF\x02\x01"


def connect() -> socket.socket:
    control = socket.create_connection(("127.0.0.1", int(os.environ["PREFECT__CONTROL_PORT"])))
    control.sendall(os.environ["PREFECT__CONTROL_TOKEN"].encode() + b"\n")
    return control


def greet(control: socket.socket) -> bytes:
    """Say hello as version 2 of the control channel does; the answer."""
    control.sendall(HELLO)
    return control.recv(len(HELLO), socket.MSG_WAITALL)


def send_receipt() -> None:
    """`receipt HEX`: greets, sends that, says what it gets for it within a second, and waits for its end."""
    control = connect()
    say(greet(control).hex())
    control.sendall(bytes.fromhex(sys.argv[2]))
    control.settimeout(1.0)
    try:
        got = control.recv(10).hex()
    except TimeoutError:
        got = "nothing"
    except ConnectionResetError:  # not all that was sent was read
        got = ""
    say(got or "the end")
    wait_for_ever()


def speak() -> None:
    """`speak HOW [1]`: speaks the control channel. `acknowledge`, `deaf`, or `leave` when it is told something.

    Says what it is told and what it is signalled. With 1, as the first version of the channel.
    """
    control = connect()
    if sys.argv[3:] != ["1"]:
        control.sendall(HELLO)
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    say("ready")
    told = control.recv(1)
    if told == HELLO[:1]:
        control.recv(len(HELLO) - 1, socket.MSG_WAITALL)
        told = control.recv(1)
    say(f"told {told.decode()}{' after the signal' if signals else ''}")
    if sys.argv[2] == "leave":
        control.close()
    elif sys.argv[2] == "acknowledge":
        control.sendall(b"a")
    while not signals:
        time.sleep(0.005)
    say("signalled")


def speak_late() -> None:
    """`speak-late HOW FILE`: the same, once the file is there."""
    say("waits")
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.005)
    speak()


def spin() -> None:
    while time.process_time() < 0.3:
        pass


def write() -> None:
    """Writes numbered lines of 64 bytes until there are as many bytes as asked for, then stays."""
    for number in range(int(sys.argv[2]) // 64):
        say(f"{number:063d}")
    wait_for_ever()


def exit_with() -> None:
    sys.exit(int(sys.argv[2]))


def die_by() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), int(sys.argv[2]))


def answer() -> None:
    os.write(3, b"the answer")


def spawner_dies_before_go() -> None:
    """A spawner that is killed when a child is forked and not let go; argv[2]: `before` or `after` the record."""
    from runnerd.spawner.program import main
    from runnerd.spawner.runs.records import ProcessRecord, RecordStore

    class DyingStore(RecordStore):
        def write(self, run: ProcessRecord) -> None:
            if sys.argv[2] == "after":
                super().write(run)
            os.write(1, f"{run.pid} {run.start_ticks}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    sys.exit(main(sys.argv[3:], store=DyingStore))


def spawner_cannot_record() -> None:
    from runnerd.spawner.program import main
    from runnerd.spawner.runs.records import ProcessRecord, RecordStore

    class FullStore(RecordStore):
        def write(self, run: ProcessRecord) -> None:
            raise OSError(28, "No space left on device")

    sys.exit(main(sys.argv[2:], store=FullStore))


def spawner_impatient() -> None:
    from runnerd.spawner.options import Options
    from runnerd.spawner.program import serve

    serve(Options(sys.argv[2:]), first_client_s=0.2)


MODES = {
    "facts": facts,
    "wait": wait_for_ever,
    "ignore-term": ignore_term,
    "count-term": count_term,
    "stop-self": stop_self,
    "straggler": straggler,
    "escape": escape,
    "hide": hide,
    "run-away": run_away,
    "sibling": sibling,
    "receipt": send_receipt,
    "speak": speak,
    "speak-late": speak_late,
    "spin": spin,
    "write": write,
    "exit": exit_with,
    "die-by": die_by,
    "answer": answer,
    "spawner-dies-before-go": spawner_dies_before_go,
    "spawner-cannot-record": spawner_cannot_record,
    "spawner-impatient": spawner_impatient,
}

if __name__ == "__main__":
    MODES[sys.argv[1]]()
