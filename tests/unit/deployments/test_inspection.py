"""inspection.py: what an inspection may cost the host."""

from __future__ import annotations

import json

from runnerd.core.process import LaunchSpec
from runnerd.core.settings import RunSettings
from runnerd.deployments.inspection import inspection_spec

SETTINGS = RunSettings(
    python="/opt/etl/bin/python",
    working_directory="/opt/etl",
    memory_max_bytes=100 * 2**20,
    cpu_quota_percent=50.0,
    tasks_max=20,
    nice=5,
    rlimits={"nofile": (64, 64)},
    runtime_max_s=10.0,
    output_max_bytes=2**16,
)


def spec_within(limits: RunSettings | None) -> LaunchSpec:
    return inspection_spec(
        python="/opt/etl/bin/python",
        user="etl",
        group=None,
        working_directory="/opt/etl",
        environment={},
        entrypoints=["a.py:f", "b.py:f"],
        key="inspect-7",
        output="/o",
        result="/r",
        limits=limits,
    )


def test_an_inspection_has_the_limits_of_the_run() -> None:
    spec = spec_within(SETTINGS)
    assert (spec.memory_max_bytes, spec.cpu_quota_percent, spec.tasks_max, spec.nice) == (100 * 2**20, 50.0, 20, 5)
    assert (spec.rlimits, spec.output_max_bytes) == ({"nofile": (64, 64)}, 2**16)
    assert spec.runtime_max_s == 2 * 10 + 60
    assert json.loads(spec.environment["RUNNERD_INSPECT"])["time_limit_s"] == 10.0


def test_what_no_run_limits_an_inspection_does() -> None:
    spec = spec_within(RunSettings(python="/p", working_directory="/w"))
    assert (spec.runtime_max_s, spec.output_max_bytes) == (2 * 60 + 60, 2**20)
