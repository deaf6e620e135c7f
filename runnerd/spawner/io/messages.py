"""Parse requests: one JSON object a line, each field checked before anything acts on its value.

Whatever the bytes are, the only exception that leaves this module is `RequestRefused`. Unknown keys are ignored, so
that an older spawner serves a newer daemon.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal

MAX_LINE_BYTES = 4 * 2**20
NAME_MAX = 256  # characters of a user, a group, a reason and an id
PATH_MAX = 4096  # bytes, as in the kernel

_DIGITS_MAX = 20  # no field is beyond 64 bits
_SHOWN = 60  # characters of what a message quotes
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class RequestRefused(Exception):
    """The spawner refuses a request; `kind` is a word for programs, the message a sentence for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def bad_request(message: str) -> RequestRefused:
    """Make the refusal of a request that is malformed."""
    return RequestRefused("bad-request", message)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _no_long_number(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise ValueError(f"a number of {len(digits)} digits is too long")
    return int(digits)


def _no_repeated_key(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key is there twice")
    return value


def parse_object(line: bytes) -> Fields:
    """Parse one line as a JSON object. Raises RequestRefused."""
    try:
        value: object = json.loads(
            line.decode(),
            parse_constant=_no_constant,
            parse_int=_no_long_number,
            object_pairs_hook=_no_repeated_key,
        )
    except (ValueError, RecursionError) as error:
        raise bad_request(f"cannot read the request: {error}") from None
    return Fields(value, "the request")


def shown(value: object) -> str:
    """Quote a value in a message: a text or a number, cut; of anything else only the kind."""
    if isinstance(value, (str, int, float)):
        text = ascii(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return "null" if value is None else f"a {type(value).__name__}"


class Fields:
    """Reads the fields of one JSON object; each getter checks its field and raises RequestRefused.

    A field that is absent or null reads as None, or is refused by a getter named `required_`.
    """

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise bad_request(f"{what} must be a JSON object")
        self._value: dict[str, object] = value

    def raw(self, name: str) -> object:
        return self._value.get(name)

    def object_or_none(self, name: str) -> dict[str, object] | None:
        return None if self._value.get(name) is None else self.inner(name)._value

    def inner(self, name: str) -> Fields:
        return Fields(self._value.get(name), name)

    def text(self, name: str) -> str | None:
        value = self._value.get(name)
        return None if value is None else _text(value, name)

    def required_text(self, name: str) -> str:
        return _text(self._value.get(name), name)

    def id(self) -> object:
        """Return the request's id, which the answer repeats."""
        value = self._value.get("id")
        if isinstance(value, str) and len(value) <= NAME_MAX:
            return value
        return None if value is None else _integer(value, "id", -(2**63), 2**63 - 1)

    def name(self, name: str) -> str | None:
        """Return a short text in one line, such as a user."""
        value = self._value.get(name)
        return None if value is None else _name(value, name)

    def required_name(self, name: str) -> str:
        return _name(self._value.get(name), name)

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self._value.get(name)
        return None if value is None else _integer(value, name, low, high)

    def required_integer(self, name: str, low: int, high: int) -> int:
        return _integer(self._value.get(name), name, low, high)

    def boolean(self, name: str) -> bool:
        value = self._value.get(name)
        if value is not None and not isinstance(value, bool):
            raise bad_request(f"{name} must be true or false")
        return bool(value)

    def seconds(self, name: str, high: float = 1e9) -> float | None:
        return self._number(name, high, "a number of seconds")

    def number(self, name: str, high: float) -> float | None:
        return self._number(name, high, "a number")

    def _number(self, name: str, high: float, what: str) -> float | None:
        value = self._value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= high:
            raise bad_request(f"{name} must be {what} from 0 to {high:.0f}")
        return float(value)

    def path(self, name: str) -> str | None:
        value = self.text(name)
        if value is not None and not value.startswith("/"):
            raise bad_request(f"{name} must be an absolute path")
        if value is not None and len(os.fsencode(value)) >= PATH_MAX:
            raise bad_request(f"{name} must be shorter than {PATH_MAX} bytes")
        return value

    def required_path(self, name: str) -> str:
        value = self.path(name)
        if value is None:
            raise bad_request(f"{name} must be an absolute path")
        return value

    def signal(self, name: str) -> int | None:
        value = self.integer(name, 1, 64)
        if value is not None and value not in signal.valid_signals():
            raise bad_request(f"{name}: there is no signal {value}")
        return value

    def key(self) -> str:
        value = self.required_text("key")
        if not _KEY.fullmatch(value):
            raise bad_request("key must be 1 to 128 of A-Z a-z 0-9 . _ - and not start with a dot")
        return value

    def attempt(self) -> int:
        return self.required_integer("attempt", 0, 10**9)


def _text(value: object, name: str) -> str:
    """Check that a path, an argument or an environment value can carry this text."""
    if not isinstance(value, str):
        raise bad_request(f"{name} must be text")
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError:
        raise bad_request(f"{name} has characters that no file name or argument can have") from None
    if b"\0" in encoded:
        raise bad_request(f"{name} must not contain a NUL character")
    return value


def _name(value: object, name: str) -> str:
    text = _text(value, name)
    if len(text) > NAME_MAX or not text.isprintable():
        raise bad_request(f"{name} must be one line of at most {NAME_MAX} printable characters")
    return text


def _integer(value: object, name: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad_request(f"{name} must be a whole number from {low} to {high}")
    return value


class Launch:
    """A launch spec, checked: the settings of one run; runnerd.processes.protocol.spec_to_json writes them."""

    __slots__ = (
        "argv",
        "attempt",
        "cpu_quota_percent",
        "environment",
        "execute_at_s",
        "fork_of",
        "forks",
        "group",
        "intents",
        "key",
        "make_directory",
        "memory_max_bytes",
        "nice",
        "output",
        "output_max_bytes",
        "outside_cgroup",
        "own",
        "result",
        "rlimits",
        "runtime_max_s",
        "stdin",
        "stop_signal",
        "stop_timeout_s",
        "tasks_max",
        "umask",
        "user",
        "working_directory",
    )

    def __init__(self, spec: Fields) -> None:
        self.key = spec.key()
        self.attempt = spec.attempt()
        self.argv = _argv(spec.raw("argv"))
        self.environment = _environment(spec.raw("environment"))
        self.working_directory = spec.required_path("working_directory")
        self.make_directory = spec.boolean("make_directory")
        self.output = spec.required_path("output")
        self.stdin = spec.path("stdin")
        self.result = spec.path("result")
        self.forks = spec.boolean("forks")
        if self.forks and self.result is not None:
            raise bad_request(
                "a process that forks has its socket as descriptor 3, and cannot have a result file there"
            )
        self.fork_of = _fork_of(spec)
        self.execute_at_s = spec.seconds("execute_at_s", 1e11)
        self.user = spec.name("user")
        self.group = spec.name("group")
        self.own = spec.boolean("own")
        self.umask = spec.integer("umask", 0, 0o777)
        self.nice = spec.integer("nice", -20, 19)
        self.rlimits = _rlimits(spec.raw("rlimits"))
        self.memory_max_bytes = spec.integer("memory_max_bytes", 1, 2**63 - 1)
        self.cpu_quota_percent = spec.number("cpu_quota_percent", 1e9)
        self.tasks_max = spec.integer("tasks_max", 1, 2**63 - 1)
        self.outside_cgroup = {"memory_max", "cpu_quota", "tasks_max"}  # limits that the run's cgroup does not enforce
        self.output_max_bytes = spec.integer("output_max_bytes", 0, 2**62)
        self.runtime_max_s = spec.seconds("runtime_max_s")
        self.intents = spec.boolean("intents")
        self.stop_signal = spec.signal("stop_signal") or signal.SIGTERM.value
        timeout_s = spec.seconds("stop_timeout_s")
        self.stop_timeout_s = 30.0 if timeout_s is None else timeout_s


def _fork_of(spec: Fields) -> tuple[str, int] | None:
    if spec.raw("fork_of") is None:
        return None
    of = spec.inner("fork_of")
    return of.key(), of.attempt()


def _argv(value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise bad_request("argv must be a list with at least the program")
    argv = [_text(item, "argv") for item in value]
    if not argv[0]:
        raise bad_request("argv must name a program")
    return argv


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise bad_request("environment must be an object of texts")
    for name, item in value.items():
        _text(item, f"environment {shown(name)}")
        if not _text(name, "environment name") or "=" in name:
            raise bad_request(f"environment: {shown(name)} cannot be a variable's name")
    return value


def _rlimits(value: object) -> list[tuple[str, int, int, int]]:
    """Return (name, resource number, soft, hard) of each rlimit."""
    if value is None:
        return []
    if not isinstance(value, dict):
        raise bad_request('rlimits must be an object such as {"nofile": [1024, 4096]}')
    limits = []
    for name, pair in value.items():
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if not isinstance(number, int):
            raise bad_request(f"rlimits: there is no limit {shown(name)}")
        if not isinstance(pair, list) or len(pair) != 2:
            raise bad_request(f"rlimits: {name} must be [soft, hard]")
        soft, hard = (_integer(item, f"rlimits {name}", -1, 2**63 - 1) for item in pair)
        limits.append((name, number, soft, hard))
    return limits
