"""plan.py: which runs may share an interpreter, what it holds, and which start cold."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.core.process import LaunchSpec
from runnerd.launch.spec import PROGRAM, program_argv
from runnerd.launch.warm_interpreter import PRELOAD
from runnerd.warm.plan import MAX_AGE_S, Plan, interpreter_spec, make_plan
from tests.kits.nouns import Json
from tests.kits.warm_host import a_spec, a_wish

PYTHON = Path("/opt/etl/bin/python")
SECRETS = {"PREFECT_API_KEY": "hush", "DB_URL": "postgres://u:hush@h", "HTTPS_PROXY": "http://u:hush@p"}


def plan(wish: Json = None, **spec: Json) -> Plan:
    made = make_plan(a_spec(PYTHON, **spec), wish or a_wish())
    assert isinstance(made, Plan), made
    return made


def cold(wish: Json = None, **spec: Json) -> str:
    made = make_plan(a_spec(PYTHON, **spec), wish or a_wish())
    assert isinstance(made, str)
    return made


def spec_of(made: Plan) -> LaunchSpec:
    return interpreter_spec(made, key="warm-1", output="/out")


def test_an_interpreter_has_what_is_read_at_its_start_and_no_secret() -> None:
    shared = {"PYTHONPATH": "/lib", "LD_LIBRARY_PATH": "/l", "TZ": "UTC", "LC_ALL": "C", "OMP_NUM_THREADS": "2"}
    spec = spec_of(plan(environment={**shared, **SECRETS, "PREFECT__FLOW_RUN_ID": "r", "LOG_LEVEL": "DEBUG"}))
    own = {name: value for name, value in spec.environment.items() if name not in (PROGRAM, PRELOAD)}
    assert own == {"PATH": "/bin", "HOME": "/home/etl", **shared}
    assert "hush" not in repr({key: value for key, value in spec.environment.items() if key != PROGRAM})
    assert (spec.forks, spec.user, spec.attempt, spec.runtime_max_s) == (True, "etl", 1, MAX_AGE_S)
    assert spec.argv[0] == str(PYTHON)


def test_what_a_preloaded_module_reads_is_there_only_with_it_and_no_secret_is() -> None:
    variables = {"PREFECT_TASKS_DEFAULT_RETRIES": "3", "TORCH_TOKEN": "hush", "NUMBA_DEBUG": "1"}
    without, with_it = plan(environment=variables), plan(a_wish(preload=("pandas",)), environment=variables)
    assert set(variables) & dict(without.environment).keys() == set()
    assert set(variables) & dict(with_it.environment).keys() == {"PREFECT_TASKS_DEFAULT_RETRIES", "NUMBA_DEBUG"}


def test_preloaded_code_has_no_more_memory_and_processors_than_its_runs() -> None:
    limits = {"memory_max_bytes": 2**28, "cpu_quota_percent": 50.0}
    bounded, shared = spec_of(plan(a_wish(preload=("pandas",)), **limits)), spec_of(plan(**limits))
    assert (bounded.memory_max_bytes, bounded.cpu_quota_percent) == (2**28, 50.0)
    assert (shared.memory_max_bytes, shared.cpu_quota_percent) == (None, None)
    assert plan(**limits) == plan(), "where nothing is preloaded, runs with other limits share one"


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ("/other/python", "-m", "prefect.engine")},
        {"user": "other"},
        {"group": "other"},
        {"environment": {"PYTHONPATH": "/x"}},
        {"environment": {"PREFECT_HOME": "/x"}},
        {"environment": {"TZ": "Europe/Berlin"}},
        {"environment": {"PATH": "/x"}},
    ],
)
def test_what_makes_another_interpreter(change: Json) -> None:
    assert plan(**change) != plan()


def test_runs_of_several_deployments_share_one() -> None:
    other = {"working_directory": "/elsewhere", "environment": {"PREFECT_API_KEY": "other"}, "memory_max_bytes": 2**30}
    assert plan(a_wish(owner="d-2"), **other) == plan()
    assert plan().working_directory == "/"


def test_one_that_has_preloaded_belongs_to_one_deployment() -> None:
    first, second = (plan(a_wish(preload=("pandas",), owner=owner)) for owner in ("d-1", "d-2"))
    assert first != second
    assert (first.working_directory, first.owner) == ("/srv/flows", "d-1")


def test_the_directory_of_one_attempt_is_no_place_for_an_interpreter() -> None:
    assert plan(a_wish(preload=("pandas",)), make_directory=True).working_directory == "/"
    assert plan(environment={"PYTHONPATH": "/a:lib"}).working_directory == "/srv/flows"
    assert "relative" in cold(environment={"PYTHONPATH": "/a:lib"}, make_directory=True)
    assert "relative" in cold(environment={"PYTHONPATH": "/a:"}, make_directory=True), "an empty one is that, too"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"argv": ("/bin/sh", "-c", "python -m prefect.engine")}, "command"),
        ({"argv": (str(PYTHON), "-m", "prefect.engine", "more")}, "command"),
        ({"argv": (str(PYTHON), "-X", "dev", "-m", "prefect.engine")}, "command"),
        ({"argv": ("python3", "-m", "prefect.engine")}, "absolute path"),
        ({"environment": {"PYTHON_TOKEN": "x"}}, "PYTHON_TOKEN is read when Prefect is imported, and may be a secret"),
        ({"environment": {"OTEL_EXPORTER_OTLP_HEADERS": "x"}}, "may be a secret"),
        ({"environment": {"FSSPEC_S3": "x"}}, "may be a secret"),
    ],
)
def test_what_always_starts_cold(change: Json, words: str) -> None:
    assert words in cold(a_wish("warm"), **change)


def test_the_engine_of_prefect_2_is_run_by_a_program() -> None:
    assert plan(argv=program_argv(str(PYTHON), "prefect.engine")) == plan()
    assert "command" in cold(argv=program_argv(str(PYTHON), "runnerd-hooks"))


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONDEVMODE", "COVERAGE_PROCESS_START", "PYTHONMALLOC"])
def test_what_starts_cold_unless_warm_is_asked_for(name: str) -> None:
    assert name in cold(a_wish("auto"), environment={name: "1"})
    plan(a_wish("warm"), environment={name: "1"})


@pytest.mark.parametrize(("version", "warm"), [("3.9.1", True), ("2.20.27", True), (None, True), ("2.19.0", False)])
def test_which_versions_of_prefect(version: str | None, warm: bool) -> None:
    assert isinstance(make_plan(a_spec(PYTHON), a_wish(prefect_version=version)), Plan) is warm
