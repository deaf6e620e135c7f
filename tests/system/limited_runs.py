"""What the limits of runs do, seen from inside a machine: `limited_runs.py SCENARIO` prints what it found, as JSON.

Runs are started as the daemon does it, by the spawner's socket. Standard library only: the machine has no more.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

SOCKET = "/run/runnerd-spawner/spawner.sock"
RUNS = "/sys/fs/cgroup/system.slice/runnerd-runs.service"
MIB = 2**20
LIMIT_S = 60.0

# Each says where it has got to in its output.
SLEEPS = "import time; print('ready', flush=True); time.sleep(600)"
BURNS = "print('ready', flush=True)\nwhile True: pass"
# In a child with a session of its own, of whose death the leader would know nothing.
EATS = """
import os, signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
child = os.fork()
if child:
    print("ready", child, flush=True)
    time.sleep(600)
os.setsid()
signal.sigwait([signal.SIGUSR1])
hoard = bytearray()
while len(hoard) < MOST:
    hoard += bytes(2**20)
print("full", flush=True)
time.sleep(600)
"""
FORKS = """
import os, time
children = 0
try:
    while children < 1000:
        if os.fork() == 0:
            time.sleep(600)
        children += 1
except OSError as error:
    print("ready", children, error.errno, flush=True)
time.sleep(600)
"""


def until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)


def read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def counts(path: str) -> dict[str, int]:
    return {name: int(number) for name, number in (line.split() for line in read(path).splitlines())}


class Spawner:
    """A connection; `records` is what the spawner said of each run last."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(LIMIT_S)
        self._socket.connect(SOCKET)
        self._lines = self._socket.makefile("rb")
        self.hello = json.loads(self._lines.readline())
        self.records = {record["key"]: record for record in self.hello["records"]}

    def _hear(self) -> dict:
        line = self._lines.readline()
        assert line, "the spawner has gone"
        message = json.loads(line)
        if "event" in message:
            self.records[message["record"]["key"]] = message["record"]
        return message

    def ask(self, op: str, **fields: object) -> object:
        self._socket.sendall(json.dumps({"op": op, "id": 1, **fields}).encode() + b"\n")
        while "reply" not in (message := self._hear()):
            pass
        assert "ok" in message, message
        return message["ok"]

    def begin(self, key: str, program: str, **limits: object) -> Begun:
        """Start a run of that Python program and wait until it is ready."""
        spec = {"argv": ["/usr/bin/python3", "-S", "-c", program], "environment": {}, "working_directory": "/"}
        spec |= {"key": key, "attempt": 0, "user": "runnerd-flow", "output": f"/var/log/runnerd/{key}.out"}
        record = self.ask("spawn", spec={**spec, **limits})
        assert record["phase"] == "running", record
        begun = Begun(key, record["pid"])
        until(lambda: "ready" in begun.said(), f"{key} is ready")
        return begun

    def ended(self, *keys: str) -> str:
        """Wait until one of them has ended; which."""
        while not (gone := [key for key in keys if self.records[key]["phase"] == "exited"]):
            self._hear()
        return gone[0]

    def end(self, *keys: str) -> None:
        for key in keys:
            self.ask("stop", key=key, attempt=0, reason="cancel", timeout_s=0.0)
            self.ended(key)


class Begun:
    def __init__(self, key: str, pid: int) -> None:
        self.pid = pid
        self.cgroup = f"{RUNS}/run-{key}.0"
        self._output = f"/var/log/runnerd/{key}.out"

    def said(self) -> str:
        return read(self._output)

    def words(self) -> list[str]:
        return self.said().splitlines()[0].split()

    def lives(self) -> bool:
        try:
            return "\nState:\tZ" not in read(f"/proc/{self.pid}/status")
        except OSError:
            return False

    def files(self) -> dict[str, str]:
        names = ("memory.max", "memory.oom.group", "cpu.max", "pids.max", "cgroup.procs")
        return {name: read(f"{self.cgroup}/{name}") for name in names}

    def gone(self) -> bool:
        return not os.path.exists(self.cgroup)

    def eat(self) -> None:
        os.kill(int(self.words()[1]), signal.SIGUSR1)


def eats(most: int) -> str:
    return EATS.replace("MOST", str(most))


# --- scenarios ----------------------------------------------------------------------------------------------------


def memory() -> dict:
    spawner = Spawner()
    other = spawner.begin("other", eats(16 * MIB), memory_max_bytes=64 * MIB)
    eater = spawner.begin("eater", eats(600 * MIB), memory_max_bytes=64 * MIB)
    child = int(eater.words()[1])
    eater.eat()
    spawner.ended("eater")
    other.eat()  # what it may have it still gets
    until(lambda: "full" in other.said(), "the other has eaten")
    found = {
        "exit": spawner.records["eater"]["exit"],
        "left": eater.lives() or os.path.exists(f"/proc/{child}") or not eater.gone(),
        "other": spawner.records["other"]["phase"],
        "other_killed": counts(f"{other.cgroup}/memory.events")["oom_kill"],
    }
    spawner.end("other")
    return {**found, "other_exit": spawner.records["other"]["exit"]}


def tasks() -> dict:
    spawner = Spawner()
    forks = spawner.begin("forks", FORKS, tasks_max=12)
    _, children, number = forks.words()
    fine = spawner.begin("fine", SLEEPS, tasks_max=12)
    found = {
        "children": int(children),
        "errno": os.strerror(int(number)),
        "refused": counts(f"{forks.cgroup}/pids.events")["max"],
        "status_here": subprocess.run(["/bin/true"]).returncode,
        "other": fine.lives(),
    }
    spawner.end("forks", "fine")
    return {**found, "left": not forks.gone(), "exit": spawner.records["forks"]["exit"]}


def processor() -> dict:
    spawner = Spawner()
    burns = spawner.begin("burns", BURNS, cpu_quota_percent=20, memory_max_bytes=64 * MIB, tasks_max=12)
    until(lambda: counts(f"{burns.cgroup}/cpu.stat")["nr_throttled"] > 2, "it is throttled")
    found = {"files": burns.files(), "pid": burns.pid, "bounded": counts(f"{burns.cgroup}/cpu.stat")}
    spawner.end("burns")
    return found


def together() -> dict:
    """Two that keep to their own limits and have more than the unit between them."""
    command = ["systemctl", "set-property", "--runtime", "runnerd-runs.service"]
    subprocess.run([*command, f"MemoryMax={96 * MIB}"], check=True)
    try:
        spawner = Spawner()
        unit = read(f"{RUNS}/memory.max")
        two = {key: spawner.begin(key, eats(70 * MIB), memory_max_bytes=400 * MIB) for key in ("one", "two")}
        for begun in two.values():
            begun.eat()
        loser = spawner.ended(*two)
        (winner,) = set(two) - {loser}
        # The kernel counts the memory of a process that it has killed until the process is gone: a slow one may kill
        # the other one too.
        until(lambda: "full" in two[winner].said() or not two[winner].lives(), "the other has eaten or is killed")
        full = two[winner].lives()
        if full:
            spawner.end(winner)
        spawner.ended(winner)
        exits = {key: spawner.records[key]["exit"] for key in two}
        return {"unit": unit, "full": full, "exit": exits[loser], "other_exit": exits[winner]}
    finally:
        subprocess.run([*command, "MemoryMax=infinity"], check=True)


def show(unit: str, what: str) -> str:
    said = subprocess.run(["systemctl", "show", "-P", what, unit], check=True, capture_output=True, text=True)
    return said.stdout.strip()


def taken_over() -> dict:
    """By a spawner after a SIGKILL, and by a daemon after a restart."""
    first = Spawner()
    limits = {"memory_max_bytes": 64 * MIB, "cpu_quota_percent": 50, "tasks_max": 12}
    runs = {key: first.begin(key, eats(600 * MIB), **limits) for key in ("stays", "grows")}
    pids = {key: begun.pid for key, begun in runs.items()}
    restarts = int(show("runnerd-spawner", "NRestarts"))
    subprocess.run(["systemctl", "kill", "-s", "KILL", "runnerd-spawner"], check=True)
    until(lambda: show("runnerd-spawner", "MainPID") not in ("0", str(first.hello["pid"])), "the next spawner starts")
    until(lambda: show("runnerd-spawner", "ActiveState") == "active", "the next spawner serves")
    subprocess.run(["systemctl", "restart", "runnerd"], check=True)
    next_ = Spawner()
    found = {
        "restarts": int(show("runnerd-spawner", "NRestarts")) - restarts,
        "limits": next_.hello["limits"],
        "same": {key: next_.records[key]["pid"] for key in pids} == pids,
        "phases": [next_.records[key]["phase"] for key in pids],
        "files": runs["grows"].files(),
        "new": next_.begin("new", SLEEPS, **limits).files(),
    }
    runs["grows"].eat()
    next_.ended("grows")
    found |= {
        "exit": next_.records["grows"]["exit"],
        "left": not runs["grows"].gone(),
        "others": [next_.records["stays"]["phase"], next_.records["new"]["phase"]],
    }
    next_.end("stays", "new")
    return found


if __name__ == "__main__":
    scenarios = {
        "memory": memory,
        "tasks": tasks,
        "processor": processor,
        "together": together,
        "taken_over": taken_over,
    }
    print(json.dumps(scenarios[sys.argv[1]]()))
