"""What the tests of processes run: `child.py MODE [ARGUMENT...]`, standard library only.

Modes that stay alive print `ready` first. The `spawner-...` modes are spawners wired to fail at one exact step.
"""

from __future__ import annotations

import json
import os
import resource
import signal
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
    """Leaves behind a daemon: a session of its own, and no parent."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            say(f"{os.getpid()}")
            wait_for_ever()
        os._exit(0)
    os.wait()


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
    from runnerd.spawner.records import RecordStore, Run

    class DyingStore(RecordStore):
        def write(self, run: Run) -> None:
            if sys.argv[2] == "after":
                super().write(run)
            os.write(1, f"{run.pid} {run.start_ticks}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    sys.exit(main(sys.argv[3:], store=DyingStore))


def spawner_cannot_record() -> None:
    from runnerd.spawner.program import main
    from runnerd.spawner.records import RecordStore, Run

    class FullStore(RecordStore):
        def write(self, run: Run) -> None:
            raise OSError(28, "No space left on device")

    sys.exit(main(sys.argv[2:], store=FullStore))


def spawner_impatient() -> None:
    from runnerd.spawner.program import Options, serve

    serve(Options(sys.argv[2:]), first_client_s=0.2)


MODES = {
    "facts": facts,
    "wait": wait_for_ever,
    "ignore-term": ignore_term,
    "count-term": count_term,
    "stop-self": stop_self,
    "straggler": straggler,
    "escape": escape,
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
