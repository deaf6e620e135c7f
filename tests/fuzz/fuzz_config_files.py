"""Configuration files: whatever stands in them, loading ends soon, and each problem has its place in one line."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from hypothesis import strategies as st

from runnerd.config import check, describe_config, read_schema
from tests.kits.config import DEFAULTS, MAIN, ConfigDir
from tests.kits.fuzzing import NUMBERS, TEXTS, answered_in_time, fuzz

SCHEMA = json.loads(read_schema())
DEFINITIONS = SCHEMA["definitions"]


def known_keys(schema: dict[str, object]) -> list[str]:
    return sorted(schema["properties"])  # type: ignore[call-overload, no-any-return]


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2**64)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(TEXTS[:-10])
    | st.sampled_from(
        ["a", "m:f", "flows/etl.py:f", "10s", "1:30", "2G", "150%", "0 2 * * *", "UTC", "infinity", "\0", "/"]
    )
)


def some(keys: list[str], values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.dictionaries(st.sampled_from([*keys, "x"]), values, max_size=6)


anything = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | some(["a", "b"], inner), max_leaves=6)
run = some(known_keys(DEFINITIONS["run"]), anything) | anything
schedule = some(known_keys(DEFINITIONS["schedule"]), scalars) | anything
pull = some(["prefect.deployments.steps.set_working_directory"], anything) | anything
special = {"run": run, "schedule": schedule, "schedules": st.lists(schedule, max_size=3), "pull": pull}
deployment = (
    st.fixed_dictionaries(
        {},
        optional={key: special.get(key, anything) for key in known_keys(DEFINITIONS["deployment"])},
    )
    | anything
)
pool = (
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(known_keys(SCHEMA["properties"]["pools"]["items"]), anything),
            "name": st.just("p") | anything,
            "queues": st.lists(st.just("q") | anything, max_size=3) | anything,
            "run": run,
        },
    )
    | anything
)
sections = {
    key: some(known_keys(schema), anything) for key, schema in SCHEMA["properties"].items() if "properties" in schema
}
file = (
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(SCHEMA["properties"], anything),
            **sections,
            "run": run,
            "pull": pull,
            "deployments": st.lists(deployment, max_size=3),
            "pools": st.lists(pool, max_size=3),
        },
    )
    | anything
)


@dataclass(frozen=True, repr=False)
class Files:
    """The content of the configuration directory; each may be wrong."""

    main: bytes
    drop_in: bytes = b""
    variables: bytes = b"A=1\n"
    template: bytes = b"{}"

    def __repr__(self) -> str:
        return f"Files({', '.join(repr(content[:5000]) for content in (self.main, self.drop_in, self.variables))})"


def load_anyhow(files: Files) -> None:
    with tempfile.TemporaryDirectory() as folder:
        etc = ConfigDir(Path(folder) / "etc")
        etc.write("env", files.variables)
        etc.write("template.json", files.template)
        good = etc.load()
        etc.write("conf.d/a.yaml", files.drop_in)
        with answered_in_time(files):
            kept = etc.load(last_good=good)  # a drop-in is never fatal
        json.dumps(describe_config(kept), allow_nan=False)
        etc.write("runnerd.yaml", files.main)
        with answered_in_time(files):
            config, problems = check(str(etc.etc), defaults=DEFAULTS)
        assert config is not None or problems
        for problem in (*problems, *kept.problems):
            assert str(problem).isprintable()
            assert len(str(problem)) < 1500
            assert problem.place is not None, problem


def dumped(document: object) -> bytes:
    return yaml.safe_dump(document).encode(errors="backslashreplace")


TEXT = b"""\
api: {url: 'http://127.0.0.1:4200/api', poll_interval: 10s, headers: {X-Team: etl}, key_file: key}
limits: {runs: 3, start_rate: 10/s, tags: {gpu: 1}}
stop: {drain_timeout: 30s, then: cancel}
late: {after: 10m, policy: run}
journal: {keep: 30d, max_runs: 100}
http: {listen: 127.0.0.1:9464, token_file: token, certificate: cert.pem}
automations: [{name: a, trigger: {expect: [x]}, actions: [{type: do-nothing, n: 1}]}]
run: {environment_file: env, nice: 5, umask: "0027", limit_nofile: "1024:4096", limit_cpu: 60s}
pull: [{prefect.deployments.steps.set_working_directory: {directory: flows}}]
deployments:
  - name: nightly
    entrypoint: flows/etl.py:nightly
    schedules: [{cron: "0 2 * * *", timezone: Europe/Berlin}, {interval: 1h, anchor_date: "2026-01-01T00:00:00"}]
    parameters: {region: eu, since: 2026-01-01}
    run: {umask: "0027", environment: &env {A: 1}, memory_max: 2G, cpu_quota: 150%, runtime_max: 2h}
  - {name: b, entrypoint: 'm:f', run: {environment: {<<: *env, B: 2}}, concurrency_limit: {limit: 1}}
  - name: c
    entrypoint: m:f
    triggers:
      - {expect: [x], match: {a: [b]}, within: 5m, parameters: {n: 1}, schedule_after: 10}
      - {triggers: [{posture: Proactive, within: 60}], require: 1}
pools: [{name: p, queues: [a, b], base_job_template: template.json}, {name: q, match: c, prefetch: 5s}]
"""
# A value of the file above, between its key (or the start of a list) and what follows.
VALUES = [match.span(1) for match in re.finditer(rb"(?<=[:\[,] )(\"[^\"]*\"|'[^']*'|[\w/.:%-]+)(?=[,}\]\n])", TEXT)]
SNIPPETS = [
    *(json.dumps(text).encode() for text in TEXTS),
    *(repr(number).encode() for number in NUMBERS if number != 10**400),
    b"1" + b"0" * 400,
    *b".inf -.inf .nan ~ yes 0o17 0x1F 1_000 1:30:00 2026-01-01 0001-01-01 *env &x &env <<".split(),
    *(b"! !!binary !!set !!python/object:os.system !!float !!int !!timestamp |".split()),
    b"[" * 60,
    b"[" * 20_000,
    b"{a: " * 60,
    b"[[[[]]]]",
    b"{}",
    b"[]",
    b"[{}]",
    b"{? [a] : b}",
    b'"\\ud800"',
    b'"\\x00"',
    b'"\\u202e"',
    b"'{{ prefect.blocks.secret.x }}'",
    b"[" + b"x, " * 20_000 + b"x]",
    b"{" + b",".join(b"k%d: 1" % number for number in range(20_000)) + b"}",
    b"k" * 100_000,
    b"\xff",
    b"\xed\xa0\x80",
    b"\x85",
    b"\xe2\x80\xa8",
    b"\t",
    b"---",
    b"...",
    b"%YAML 9.9",
]


@st.composite
def odd_values(draw: st.DrawFn) -> Files:
    """The file above with some of its values replaced."""
    text = TEXT
    for start, end in sorted(
        draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=4, unique=True)), reverse=True
    ):
        text = text[:start] + draw(st.sampled_from(SNIPPETS)) + text[end:]
    return Files(main=text, drop_in=text)


@st.composite
def slips(draw: st.DrawFn) -> Files:
    """The file above after a slip of the keyboard."""
    at = draw(st.integers(0, len(TEXT) - 1))
    text = TEXT[:at] + draw(st.binary(max_size=3)) + TEXT[at + draw(st.integers(0, 3)) :]
    return Files(main=MAIN.encode(), drop_in=text)


bytes_ = st.binary(max_size=200)
documents = st.builds(Files, main=file.map(dumped), drop_in=file.map(dumped))
contents = st.builds(Files, main=bytes_, drop_in=bytes_)
named = st.builds(Files, main=st.just(MAIN.encode()), drop_in=st.just(TEXT), variables=bytes_, template=bytes_)


def test_documents() -> None:
    fuzz(documents, load_anyhow, examples=30, share=0.25)


def test_values() -> None:
    fuzz(odd_values(), load_anyhow, examples=40, share=0.5, found=FOUND)


def test_bytes_and_slips() -> None:
    fuzz(contents | slips() | named, load_anyhow, examples=50, share=0.25)


FOUND: list[Files] = []
