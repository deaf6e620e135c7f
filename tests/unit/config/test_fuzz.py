"""Whatever stands in the files, loading gives a Config with problems or a ConfigError, and nothing else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runnerd.config import check, describe_config, read_schema
from tests.kits.config import DEFAULTS, MAIN, ConfigDir

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


def load_anyhow(main: bytes, drop_in: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        etc = ConfigDir(Path(folder) / "etc")
        good = etc.load()
        etc.write("conf.d/a.yaml", drop_in)
        kept = etc.load(last_good=good)  # a drop-in is never fatal
        json.dumps(describe_config(kept), allow_nan=False)
        etc.write("runnerd.yaml", main)
        config, problems = check(str(etc.etc), defaults=DEFAULTS)
        assert config is not None or problems
        assert all(str(problem).isprintable() for problem in problems)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=80)
@given(file, file)
def test_any_yaml(main: object, drop_in: object) -> None:
    load_anyhow(yaml.safe_dump(main).encode(), yaml.safe_dump(drop_in).encode())


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes(main: bytes, drop_in: bytes) -> None:
    load_anyhow(main, drop_in)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.binary(max_size=3))
def test_any_slip_of_the_keyboard(at: int, typed: bytes) -> None:
    text = b"""\
deployments:
  - name: nightly
    entrypoint: flows/etl.py:nightly
    schedules: [{cron: "0 2 * * *", timezone: Europe/Berlin}]
    run: {umask: "0027", environment: &env {A: 1}}
  - {name: b, entrypoint: 'm:f', run: {environment: {<<: *env, B: 2}}}
pools: [{name: p, queues: [a, b]}, {name: q, match: c}]
"""
    at %= len(text)
    load_anyhow(MAIN.encode(), text[:at] + typed + text[at + 1 :])
