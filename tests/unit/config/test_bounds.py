"""Every key of the files has its bounds: numbers, texts, durations and sizes beyond them are refused with the place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runnerd.config import read_schema
from tests.kits.config import MAIN, ConfigDir

SCHEMA = json.loads(read_schema())
RUN = "deployments:\n  - {{name: a, entrypoint: 'flows/etl.py:nightly', run: {{{}}}}}\n"
SCHEDULE = "deployments:\n  - {{name: a, entrypoint: 'flows/etl.py:nightly', schedules: [{{{}}}]}}\n"
POOL = "pools:\n  - {{name: p, {}}}\n"
LINES, LONG = '"b\\nc\\e"', "b" * 130000
MANY = [str(number) for number in range(1001)]
API = "api: {{{}}}\n"


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def parts(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of the schema that a value is checked against."""
    if not isinstance(schema, dict) or schema.get("deprecated"):
        return
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from parts(part, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        yield from parts(schema.get(word), f"{path}[]")
    for name, part in schema.get("definitions", {}).items():
        yield from parts(part, name)


def types(part: dict[str, Any]) -> set[str]:
    kinds = part.get("type", [])
    return {kinds} if isinstance(kinds, str) else set(kinds)


def test_every_number_has_a_smallest_and_every_count_a_largest() -> None:
    sizes = {"memory_max", "output_max", *(f"limit_{name}" for name in "core as fsize memlock stack data cpu".split())}
    for path, part in parts(SCHEMA):
        if {"number", "integer"} & types(part) and "environment" not in path and ".env[" not in path:
            assert {"minimum", "exclusiveMinimum"} & part.keys(), path
        if "integer" in types(part) and path.rpartition(".")[2] not in sizes | {"stop_signal"}:
            assert "maximum" in part, path


def test_every_text_has_a_largest() -> None:
    for path, part in parts(SCHEMA):
        if "string" in types(part):
            assert "maxLength" in part, path


def test_every_list_has_a_largest() -> None:
    for path, part in parts(SCHEMA):
        if "array" in types(part):
            assert "maxItems" in part, path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (API.format("poll_interval: 1us"), "1:22: api.poll_interval must be at least 100ms, not '1us'"),
        (API.format("poll_interval: 99ms"), "1:22: api.poll_interval must be at least 100ms, not '99ms'"),
        (API.format("poll_interval: 2d"), "1:22: api.poll_interval must be at most 1d, not '2d'"),
        (API.format("poll_interval: 0.01"), "1:22: api.poll_interval must be between 0.1 and 86400 seconds, not 0.01"),
        (API.format("request_timeout: 1ms"), "1:24: api.request_timeout must be at least 1s, not '1ms'"),
        (API.format("prefetch: 25h"), "1:17: api.prefetch must be at most 1d, not '25h'"),
        (POOL.format("poll_interval: 99ms"), "2:30: poll_interval must be at least 100ms, not '99ms'"),
        (POOL.format("poll_interval: 2d"), "2:30: poll_interval must be at most 1d, not '2d'"),
        (POOL.format("prefetch: 25h"), "2:25: prefetch must be at most 1d, not '25h'"),
        (SCHEDULE.format("interval: 1us"), "2:74: schedules[0].interval must be at least 1s, not '1us'"),
        (RUN.format("runtime_max: 1us"), "2:70: run.runtime_max must be at least 1s, not '1us'"),
        (RUN.format("stop_timeout: 1us"), "2:71: run.stop_timeout must be at least 100ms, not '1us'"),
        (RUN.format("hook_timeout: 1us"), "2:71: run.hook_timeout must be at least 1s, not '1us'"),
        (RUN.format("memory_max: 1K"), "2:69: run.memory_max must be at least 1M, not '1K'"),
        (RUN.format("output_max: 1"), "2:69: run.output_max must be at least 4K, not 1"),
        (RUN.format("limit: 10000000000"), "2:64: run.limit must be at most 1000000000, not 10000000000"),
        (RUN.format(f"limit: 1{'0' * 20}"), f"2:64: run.limit must be at most 1000000000, not 1{'0' * 20}"),
        (f"journal: {{max_runs: 1{'0' * 20}}}", f"1:21: journal.max_runs must be at most 1000000000, not 1{'0' * 20}"),
        (f"limits: {{runs: 1{'0' * 20}}}", f"1:16: limits.runs must be at most 1000000000, not 1{'0' * 20}"),
        ("warm: {idle: 1ms}", "1:14: warm.idle must be at least 1s, not '1ms'"),
        ("warm: {interpreters: 1001}", "1:22: warm.interpreters must be between 0 and 1000, not 1001"),
        (
            "warm: {min_free_memory: infinity}",
            "1:25: warm.min_free_memory must be a size such as 512M or 2G, not 'infinity'",
        ),
        (
            RUN.format("preload: ['a b']"),
            "2:67: run.preload[0] must be the name of a module such as pandas or mypkg.tables, not 'a b'",
        ),
        (
            RUN.format("preload: [../x]"),
            "2:67: run.preload[0] must be the name of a module such as pandas or mypkg.tables, not '../x'",
        ),
        ("limits: {start_rate: 100000/s}", "1:22: limits.start_rate must be between 1/h and 1000/s, not '100000/s'"),
        ("limits: {start_rate: 0.001/h}", "1:22: limits.start_rate must be between 1/h and 1000/s, not '0.001/h'"),
        (
            RUN.format(f"stop_timeout: {'9' * 200}s"),
            f"2:71: run.stop_timeout must be at most 100 characters long, not '{'9' * 59}...",
        ),
        (RUN.format(f"user: {'u' * 300}"), f"2:63: run.user must be at most 256 characters long, not '{'u' * 59}..."),
        (RUN.format('user: "a\\0b"'), "2:63: run.user must be text without control characters, not 'a\\x00b'"),
        (
            RUN.format('python: "/a\\0b"'),
            "2:65: run.python: '/a\\x00b' has the control character U+0000; remove it",
        ),
        (
            RUN.format('environment: {"A\\nB": c}'),
            "2:71: run.environment has the key 'A\\nB'; a key must be a variable's name, without '='",
        ),
        (RUN.format('environment: {A: "b\\0c"}'), "2:70: run.environment: the value of 'A' has a NUL character"),
        (
            RUN.format(f"environment: {{A: {'s' * 130001}}}"),
            "2:74: run.environment.A must be at most 130000 characters long, not text",
        ),
        (
            API.format('headers: {"A\\r\\nB": c}'),
            "1:17: api.headers has the key 'A\\r\\nB'; a key must be a header's name, such as X-Team",
        ),
        *(
            (
                API.format(f'headers: {{A: "secret{odd}b"}}'),
                "1:20: api.headers.A must be printable ASCII text in one line, not text",
            )
            for odd in ("\\r\\n", "\\n", "\\0", "\\x1b", "\\x85", "\\u202e", "\u00e9")
        ),
        (
            API.format("headers: {content-Length: '5'}"),
            "1:16: api.headers: 'content-Length' cannot be set: it says where a request ends; remove it",
        ),
        (
            API.format('url: "http://h\\r\\nX: 1/api"'),
            "1:12: api.url: 'http://h\\r\\nX: 1/api' has the control character U+000D; remove it",
        ),
        (POOL.format('queues: ["a\\x85"]'), None),
        (
            POOL.format(f"queues: {json.dumps([str(n) for n in range(1001)])}"),
            "2:23: queues must have at most 1000 items, not 1001",
        ),
        ("x" * 100_000 + ": 1", None),
        (f"name: {'n' * 501}", f"1:7: name must be at most 500 characters long, not '{'n' * 59}..."),
    ],
)
def test_what_is_out_of_bounds(etc: ConfigDir, text: str, words: str | None) -> None:
    etc.write("runnerd.yaml", MAIN)
    etc.write("conf.d/a.yaml", text)
    (line,) = etc.problems()
    assert line.isprintable()
    assert len(line) < 1200
    if words is not None:
        assert line == f"conf.d/a.yaml:{words}"


def test_what_is_at_the_bounds_is_right(etc: ConfigDir) -> None:
    etc.write(
        "conf.d/a.yaml",
        API.format(f"poll_interval: 100ms, request_timeout: 1s, prefetch: 1d, headers: {{X-A: '{'a' * 8192}'}}")
        + f"name: {'n' * 500}\n"
        + "limits: {runs: 1000000000, start_rate: 1/h}\n"
        + POOL.format(f"prefetch: 0, queues: ['{'q' * 500}']")
        + RUN.format(
            f'stop_timeout: 100ms, memory_max: 1M, output_max: 4K, environment: {{A: "b\\nc\\e", B: {"b" * 130000}}}'
        ),
    )
    assert etc.problems() == []
