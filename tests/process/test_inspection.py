"""The inspection program and its reader, without Prefect; tests/server/test_inspection_real.py has the real ones.

Where a flow has to load at all, a few lines in the working directory stand in for Prefect.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from pathlib import Path

import psutil
import pytest

from runnerd.core.prefect import Inspection
from runnerd.core.process import LaunchSpec
from runnerd.deployments.inspection import (
    ENTRYPOINTS_PER_PROCESS,
    InspectionFailure,
    cache_key,
    inspection_batches,
    inspection_spec,
    parse_results,
)
from runnerd.launch.spec import PROGRAM
from tests.kits.inspecting import inspect, write_stand_in

GOOD = {
    "flow_name": "etl",
    "description": None,
    "version": None,
    "parameter_schema": {"type": "object"},
    "prefect_version": "3.8.8",
    "file": "/srv/etl.py",
    "sha256": "00",
}


def line(entrypoint: str | None, **answer: object) -> str:
    return json.dumps({"entrypoint": entrypoint, **answer}) + "\n"


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    return write_stand_in(tmp_path)


# --- the program --------------------------------------------------------------------------------------------


def test_without_prefect_one_line_answers_for_all(tmp_path: Path) -> None:
    done = inspect(sys.executable, tmp_path, ["a.py:f", "b.py:f"])
    assert done.code == 1
    assert done.answer_text.count("\n") == 1
    for entrypoint in ("a.py:f", "b.py:f"):
        assert done.failure(entrypoint).kind == "no-prefect"
        assert "prefect is not installed for this interpreter" in done.failure(entrypoint).message
        assert sys.executable in done.failure(entrypoint).message


def test_a_broken_prefect_is_told_with_its_cause(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    (tmp_path / "prefect" / "__init__.py").write_text("import pydantic_of_another_age\n")
    failure = inspect(sys.executable, tmp_path, ["a.py:f"]).failure("a.py:f")
    assert failure.kind == "no-prefect"
    assert "cannot import prefect: ModuleNotFoundError: No module named 'pydantic_of_another_age'" in failure.message


def test_what_a_file_does_at_import_costs_its_own_answer_only(stand_in: Path) -> None:
    files = {
        "exit.py": "import os; os._exit(3)",
        "sysexit.py": "import sys; sys.exit('no')",
        "killed.py": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "realtime.py": "import os, signal; os.kill(os.getpid(), signal.SIGRTMIN + 2)",
        "silent.py": "import os; os._exit(0)",
        "raises.py": "x = 1\nraise OSError('no disk')",
        "last.py": "",
    }
    for name, text in files.items():
        (stand_in / name).write_text(text)
    done = inspect(sys.executable, stand_in, [f"{name}:f" for name in files])

    assert done.code == 0
    told = {name: done.answers[f"{name}:f"] for name in files}
    assert {name: answer.kind for name, answer in told.items() if isinstance(answer, InspectionFailure)} == {
        "exit.py": "crashed",
        "sysexit.py": "crashed",
        "killed.py": "crashed",
        "realtime.py": "crashed",
        "silent.py": "crashed",
        "raises.py": "import-failed",
    }
    assert done.failure("exit.py:f").message == "exit.py: the interpreter exited 3 while it imported this file"
    assert "sys.exit('no')" in done.failure("sysexit.py:f").message
    assert "was killed by SIGKILL" in done.failure("killed.py:f").message
    assert "was killed by signal" in done.failure("realtime.py:f").message
    assert done.failure("raises.py:f").message == "raises.py: OSError: no disk (line 2)"
    good = done.good("last.py:f")
    assert (good.flow_name, good.description, good.version) == ("etl", "loads", "1")
    assert good.file == str(stand_in / "last.py")
    assert good.sha256 == hashlib.sha256(b"").hexdigest()


def test_what_hangs_beside_others_is_slow(stand_in: Path) -> None:
    (stand_in / "hang.py").write_text("import time\nwhile True:\n    time.sleep(1)\n")
    (stand_in / "good.py").touch()
    hang = inspect(sys.executable, stand_in, ["hang.py:f", "hang.py:g"], time_limit_s=600, patience_s=1)
    assert [hang.failure(f"hang.py:{name}").kind for name in "fg"] == ["slow", "slow"]
    assert inspect(sys.executable, stand_in, ["good.py:f"], patience_s=60).good("good.py:f").flow_name == "etl"


def test_a_hang_is_cut_with_everything_it_started(stand_in: Path) -> None:
    (stand_in / "hang.py").write_text(
        "import pathlib, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "while True:\n    time.sleep(1)\n"
    )
    (stand_in / "next.py").touch()
    # The limit has to let the child write its pid first, on the busiest machine; that is all this test waits for.
    done = inspect(sys.executable, stand_in, ["hang.py:f", "next.py:f"], time_limit_s=5)
    failure = done.failure("hang.py:f")
    assert failure.kind == "timeout"
    assert "hang.py: importing it took longer than 5s" in failure.message
    assert done.good("next.py:f").flow_name == "etl"
    child = int((stand_in / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_process_left_by_an_import_does_not_delay_the_answer(stand_in: Path) -> None:
    (stand_in / "leaves.py").write_text("import subprocess; subprocess.Popen(['sleep', '1000'], close_fds=False)\n")
    done = inspect(sys.executable, stand_in, ["leaves.py:f"], time_limit_s=100)
    assert done.good("leaves.py:f").flow_name == "etl"


def test_prints_and_writes_to_descriptor_3_stay_out_of_the_answers(stand_in: Path) -> None:
    (stand_in / "noisy.py").write_text(
        "import os, sys\n"
        "print('to stdout'); print('to stderr', file=sys.stderr)\n"
        "os.system('echo from a shell; echo from fd 3 >&3')\n"
        "try:\n    os.write(3, b'garbage')\nexcept OSError:\n    pass\n"
    )
    done = inspect(sys.executable, stand_in, ["noisy.py:f"])
    assert done.good("noisy.py:f").flow_name == "etl"
    assert done.answer_text.count("\n") == 1
    assert "garbage" not in done.answer_text
    assert "from fd 3" not in done.answer_text
    for words in ("to stdout", "to stderr", "from a shell"):
        assert words in done.output
    assert done.output.count("prefect says hello") == 1


def test_a_missing_file_and_a_missing_module_are_told_apart_from_broken_ones(stand_in: Path) -> None:
    done = inspect(sys.executable, stand_in, ["flows/none.py:f", "/none.py:f", "nonsense"])
    assert done.failure("flows/none.py:f").kind == "missing-file"
    assert done.failure("flows/none.py:f").message == f"flows/none.py: no such file or directory in {stand_in}"
    assert done.failure("/none.py:f").message == "/none.py: no such file or directory"
    assert "write path/to/file.py:function" in done.failure("nonsense").message


def test_the_program_is_python_3_9() -> None:
    """The interpreter is the deployment's, not ours."""
    spec = spec_for(["a.py:f"])
    ast.parse(spec.environment[PROGRAM], feature_version=(3, 9))
    assert "import runnerd" not in spec.environment[PROGRAM]
    assert "from runnerd" not in spec.environment[PROGRAM]


# --- what to start ------------------------------------------------------------------------------------------


def spec_for(entrypoints: list[str]) -> LaunchSpec:
    return inspection_spec(
        python="/opt/etl/bin/python",
        user="etl",
        group=None,
        working_directory="/opt/etl",
        environment={"A": "1"},
        entrypoints=entrypoints,
        key="inspect-7",
        output="/o",
        result="/r",
    )


def test_the_spec_bounds_the_whole_by_its_parts() -> None:
    spec = spec_for(["a.py:f", "b.py:f", "a.py:f"])
    assert spec.argv[:2] == ("/opt/etl/bin/python", "-c")
    assert spec.runtime_max_s == 2 * 60 + 60
    assert (spec.key, spec.user, spec.working_directory, spec.result) == ("inspect-7", "etl", "/opt/etl", "/r")
    assert spec.environment["A"] == "1"
    assert json.loads(spec.environment["RUNNERD_INSPECT"])["entrypoints"] == ["a.py:f", "b.py:f"]


def test_batches_keep_the_order_drop_doubles_and_fit_one_environment_string() -> None:
    entrypoints = [f"{'d' * 2000}/{n}.py:flow" for n in range(2 * ENTRYPOINTS_PER_PROCESS + 1)]
    batches = list(inspection_batches([*entrypoints, *entrypoints]))
    assert [entrypoint for batch in batches for entrypoint in batch] == entrypoints
    assert len(batches) == 3
    for batch in batches:
        assert len(spec_for(list(batch)).environment["RUNNERD_INSPECT"]) < 128 * 1024


# --- reading the answers ------------------------------------------------------------------------------------


def test_a_good_answer_becomes_an_inspection() -> None:
    answer = parse_results(line("a", ok=GOOD), ["a"])["a"]
    assert answer == Inspection(
        flow_name="etl",
        description=None,
        parameter_schema={"type": "object"},
        prefect_version="3.8.8",
        file="/srv/etl.py",
        sha256="00",
        dependencies={},
    )


def test_what_was_not_answered_says_how_the_process_ended() -> None:
    answers = parse_results(line("a", ok=GOOD), ["a", "b"], words="killed by SIGKILL")
    assert isinstance(answers["a"], Inspection)
    assert answers["b"] == InspectionFailure(
        kind="no-answer", message="the inspection process ended before it answered: killed by SIGKILL"
    )


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "\n\n",
        line("b", ok=GOOD)[:-9],  # cut
        "null\n",
        "[]\n",
        "7\n",
        '{"entrypoint": ["b"]}\n',
        '{"entrypoint": "b"}\n',
        '{"entrypoint": "b", "ok": null}\n',
        line("b", ok={**GOOD, "flow_name": 7}),
        line("b", ok={**GOOD, "parameter_schema": "x"}),
        line("b", error={"kind": "unheard-of", "message": "m"}),
        line("b", error={"kind": ["crashed"], "message": "m"}),
        line("b", error={"kind": "crashed"}),
        "[" * 100_000 + "\n",
        "\x00\udcff\n",
    ],
)
def test_garbage_costs_only_its_own_line(garbage: str) -> None:
    text = line("a", ok=GOOD) + garbage + ("" if garbage.endswith("\n") else "\n") + line("c", ok=GOOD)
    answers = parse_results(text, ["a", "b", "c"], words="exited 1")
    assert isinstance(answers["a"], Inspection)
    assert isinstance(answers["c"], Inspection)
    failure = answers["b"]
    assert isinstance(failure, InspectionFailure)
    assert failure.kind == "no-answer"


def test_the_first_answer_counts_and_strangers_are_ignored() -> None:
    text = line("a", ok=GOOD) + line("a", ok={**GOOD, "flow_name": "other"}) + line("x", ok=GOOD)
    answers = parse_results(text, ["a"])
    assert list(answers) == ["a"]
    assert isinstance(answers["a"], Inspection)
    assert answers["a"].flow_name == "etl"


# --- the cache's key ----------------------------------------------------------------------------------------


def key(folder: Path, **other: object) -> str | None:
    facts = {
        "python": str(folder / "venv" / "bin" / "python"),
        "entrypoint": "etl.py:f",
        "working_directory": str(folder),
        "user": "etl",
        "environment": {},
    }
    return cache_key(**{**facts, **other})


def test_the_key_changes_with_everything_the_answer_depends_on(tmp_path: Path) -> None:
    (tmp_path / "etl.py").write_text("one")
    (tmp_path / "copy.py").write_text("one")
    packages = tmp_path / "venv" / "lib" / "python3.12" / "site-packages"
    (packages / "prefect-3.8.8.dist-info").mkdir(parents=True)
    first = key(tmp_path)
    assert first is not None
    assert key(tmp_path) == first
    others = [
        key(tmp_path, python="/usr/bin/python3"),
        key(tmp_path, entrypoint="etl.py:g"),
        key(tmp_path, entrypoint="copy.py:f"),
        key(tmp_path, user=None),
        key(tmp_path, environment={"A": "1"}),
        key(tmp_path, sha256="00"),
    ]
    (packages / "prefect-3.8.8.dist-info").rename(packages / "prefect-3.9.0.dist-info")
    others.append(key(tmp_path))
    (tmp_path / "etl.py").write_text("two")
    others.append(key(tmp_path))
    assert len({first, *others}) == len(others) + 1
    assert None not in others


def test_the_key_of_what_was_inspected_is_the_key_of_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "etl.py").write_text("one")
    assert key(tmp_path, sha256=hashlib.sha256(b"one").hexdigest()) == key(tmp_path)


def test_there_is_no_key_where_the_file_cannot_be_told_or_read(tmp_path: Path) -> None:
    assert key(tmp_path) is None
    assert key(tmp_path, entrypoint="etl.flows:f") is None
    assert key(tmp_path, entrypoint="etl") is None
