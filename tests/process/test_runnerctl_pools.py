"""runnerctl pool and queue, as processes, through the real control server and its backend to a fake Prefect."""

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runnerd.control.fields import POOL_FIELDS, QUEUE_FIELDS
from tests.kits.fakes.fake_pools import FakePools
from tests.kits.fakes.runnerctl import COMMAND, PATIENCE_S, environment, runnerctl
from tests.kits.fakes.serving import Serving, serving

TEMPLATE = {"job_configuration": {}, "variables": {"properties": {"command": {}, "env": {}}}}
LONG_AGO = datetime(2020, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        there = it.host.prefect.pools
        there.add_worker_type("process", "prefect", TEMPLATE)
        there.add_worker_type("docker", "prefect-docker", TEMPLATE)
        there.create_pool("etl", base_job_template=TEMPLATE)
        there.create_queue("etl", "urgent", priority=1)
        there.create_pool("gpu", type="docker", is_paused=True, concurrency_limit=2, description="the \x1b[31mcards")
        yield it


def pools(served: Serving) -> FakePools:
    return served.host.prefect.pools


def did(served: Serving, *arguments: str, remark: str = "") -> str:
    """What it prints when it is done."""
    result = runnerctl(served, *arguments)
    assert (result.status, result.err) == (0, remark)
    return result.out


def document(served: Serving, *arguments: str) -> Any:
    """What --json prints: one document and nothing else, on either stream."""
    return json.loads(did(served, *arguments, "--json"))


def failed(served: Serving, status: int, *arguments: str) -> str:
    """What it says when it is not: one line."""
    result = runnerctl(served, *arguments)
    assert (result.status, result.out) == (status, "")
    assert result.err.startswith("runnerctl: ")
    assert result.err.count("\n") == 1
    return result.err


def on_a_terminal(served: Serving, *arguments: str, typed: str = "", columns: int = 100) -> tuple[int, str]:
    """Status, and all that the terminal showed."""
    ours, its = pty.openpty()
    env = environment(RUNNERD_SOCKET=served.socket, COLUMNS=str(columns))
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdin=its, stdout=its, stderr=its, env=env, start_new_session=True
    )
    os.close(its)
    shown = b""
    try:
        os.write(ours, typed.encode())
        with suppress(OSError):  # EIO: the other side is closed
            while block := os.read(ours, 4096):
                shown += block
        return process.wait(PATIENCE_S), shown.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# --- looking ----------------------------------------------------------------------------------------------------------


def test_pools(served: Serving) -> None:
    lines = did(served, "pool", "ls").splitlines()
    assert lines[0].split("  ")[0] == "NAME"
    assert lines[1].split()[:5] == ["etl", "process", "none", "not", "ready"]
    assert lines[2].startswith("gpu (**)  docker ")
    assert " the ?[31mcards " in lines[2]
    assert lines[3] == "(**) denotes a paused pool"
    listed = document(served, "pool", "ls")
    assert [set(its) for its in listed] == [POOL_FIELDS, POOL_FIELDS]
    assert [(its["name"], its["paused"], its["served"]) for its in listed] == [
        ("etl", False, True),
        ("gpu", True, False),
    ]


def test_no_pools(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        assert did(served, "pool", "ls", remark="no work pools; create one with: runnerctl pool create\n") == ""
        assert did(served, "queue", "ls", remark="no work queues\n") == ""
        assert document(served, "pool", "ls") == []


def test_one_pool(served: Serving) -> None:
    pools(served).heartbeat("etl", worker="build-07", interval_s=30)
    shown = did(served, "pool", "inspect", "etl")
    for words in ("Job variables:     command, env\n", "urgent ", "default ", "build-07  online  ", "by this host\n"):
        assert words in shown
    shown_json = document(served, "pool", "inspect", "etl")
    assert shown_json["base_job_template"] == TEMPLATE
    assert f"Created:           {shown_json['created_at']}\n" in shown
    assert f"Updated:           {shown_json['updated_at']}\n" in shown
    assert "Status:            paused\n" in did(served, "pool", "inspect", "gpu")
    pools(served).create_pool("agents", type="prefect-agent", is_paused=True)
    assert "Status:            paused\n" in did(served, "pool", "inspect", "agents")


def test_queues(served: Serving) -> None:
    pools(served).update_queue("etl", "urgent", {"is_paused": True, "concurrency_limit": 3})
    lines = did(served, "queue", "ls").splitlines()
    assert lines[0].split()[:3] == ["NAME", "POOL", "PRIORITY"]
    assert lines[1].split()[:6] == ["urgent", "(**)", "etl", "1", "3", "paused"]
    assert lines[4:] == ["(**) denotes a paused queue"]
    assert "POOL" not in did(served, "queue", "ls", "--pool", "gpu")
    listed = document(served, "queue", "ls", "--pool", "etl")
    assert [set(its) for its in listed] == [QUEUE_FIELDS, QUEUE_FIELDS]
    shown = did(served, "queue", "inspect", "default", "--pool", "etl")
    assert "Pool:              etl (its default queue)\n" in shown
    assert document(served, "queue", "inspect", "urgent", "--pool", "etl") == listed[0]


def test_a_preview_marks_what_is_late(served: Serving) -> None:
    deployment_id = pools(served).add_deployment("etl", queue="urgent", name="nightly")
    run_id = pools(served).add_run(deployment_id, due=LONG_AGO, name="old-otter")
    pools(served).add_run(deployment_id, due=datetime.now(UTC) + timedelta(hours=10), name="new-otter")
    first, late, *rest = did(served, "pool", "preview", "etl").splitlines()
    assert first.split() == ["DUE", "RUN", "NAME", "DEPLOYMENT", "QUEUE", "STATE"]
    assert late.startswith(f"2020-01-01T12:00:00.000Z (**)  {run_id}  old-otter  nightly     urgent  ")
    assert rest == ["(**) denotes a late run"]
    assert "new-otter" in did(served, "queue", "preview", "urgent", "--pool", "etl", "--hours", "11")
    every = did(served, "pool", "preview", remark="gpu is paused: it delivers no runs\n")
    assert every.splitlines()[0].split() == ["DUE", "RUN", "NAME", "DEPLOYMENT", "POOL", "QUEUE", "STATE"]
    assert [run["late"] for run in document(served, "pool", "preview", "etl", "--hours", "11")["runs"]] == [True, False]
    status, shown = on_a_terminal(served, "pool", "preview", "etl")
    assert status == 0
    assert "ago (**)\x1b[0m" in shown


def test_a_preview_of_nothing(served: Serving) -> None:
    assert did(served, "pool", "preview", "etl", remark="no runs; use --hours to list runs due later\n") == ""
    remark = "no runs; use --hours to list runs due later\ngpu is paused: it delivers no runs\n"
    assert did(served, "pool", "preview", "gpu", remark=remark) == ""


def test_a_preview_of_a_paused_pool_shows_what_waits_there(served: Serving) -> None:
    pools(served).add_run(pools(served).add_deployment("gpu"), due=LONG_AGO, name="old-otter")
    first, waiting, _ = did(
        served, "pool", "preview", "gpu", remark="gpu is paused: it delivers no runs\n"
    ).splitlines()
    assert first.endswith("STATE      WAITS FOR")
    assert (" old-otter " in waiting, waiting.endswith("pool gpu is paused")) == (True, True)


def test_a_narrow_terminal_keeps_the_marks(served: Serving) -> None:
    status, shown = on_a_terminal(served, "pool", "ls", columns=60)
    assert status == 0
    assert "\x1b[33mgpu (**)\x1b[0m" in shown
    assert "DESCRIPTION" not in shown


# --- changing ---------------------------------------------------------------------------------------------------------


def test_creating_a_pool(served: Serving, tmp_path: Path) -> None:
    template = tmp_path / "template.json"
    template.write_text(json.dumps({**TEMPLATE, "job_configuration": {"own": "1"}}))
    about = ("--type", "docker", "--paused", "--concurrency-limit", "0", "--description", "for images")
    assert "then resume it, because it is paused: " in runnerctl(served, "pool", "create", "off", "--paused").err
    made = document(served, "pool", "create", "new", *about, "--base-job-template", str(template))
    assert (made["type"], made["paused"], made["concurrency_limit"], made["created"]) == ("docker", True, 0, True)
    assert pools(served).read_pool("new").base_job_template["job_configuration"] == {"own": "1"}
    deploy = "deploy a flow to it: prefect deploy --pool"
    advice = f"next: add {{name: plain}} under pools: in runnerd.yaml and reload; then {deploy} plain\n"
    said = did(served, "pool", "create", "plain", "--concurrency-limit", "3", remark=advice)
    id_ = pools(served).read_pool("plain").id
    about = f"Id:                {id_}\nType:              process\nConcurrency limit: 3\n"
    assert said == f"created work pool plain\n{about}"
    assert "already; runnerctl pool create --update" in failed(served, 1, "pool", "create", "etl")
    said = did(served, "pool", "create", "etl", "--update", remark=f"next: {deploy} etl\n")
    assert said.startswith("updated work pool etl\nId: ")
    assert "its type is 'docker', and Prefect cannot change it" in failed(
        served, 1, "pool", "create", "gpu", "--update", "--type", "process"
    )
    assert "knows docker, process" in failed(served, 4, "pool", "create", "x", "--type", "nix")


@pytest.mark.parametrize(
    ("text", "why"), [(None, "No such file"), ("{", "as JSON"), ("[" * 99999, "as JSON"), ("[]", "a JSON object")]
)
def test_a_template_that_is_none(served: Serving, tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "template.json"
    if text is not None:
        path.write_text(text)
    assert why in failed(served, 1, "pool", "create", "new", "--base-job-template", str(path))
    assert "new" not in pools(served).pools


def test_changing_a_pool(served: Serving, tmp_path: Path) -> None:
    assert did(served, "pool", "pause", "etl") == "work pool etl is paused: it delivers no runs\n"
    assert pools(served).read_pool("etl").is_paused
    assert did(served, "pool", "resume", "etl") == "work pool etl is resumed: it delivers runs again\n"
    assert did(served, "pool", "set-concurrency-limit", "etl", "7") == "work pool etl has a concurrency limit of 7\n"
    assert document(served, "pool", "update", "etl", "--description", "new")["concurrency_limit"] == 7
    assert did(served, "pool", "clear-concurrency-limit", "etl") == "work pool etl has no concurrency limit\n"
    (tmp_path / "f").write_text(json.dumps({**TEMPLATE, "job_configuration": {"own": "1"}}))
    assert did(served, "pool", "update", "etl", "--base-job-template", str(tmp_path / "f")) == "updated work pool etl\n"
    its = pools(served).read_pool("etl")
    assert (its.concurrency_limit, its.description, its.is_paused) == (None, "new", False)
    assert its.base_job_template["job_configuration"] == {"own": "1"}


def test_the_template_of_a_type(served: Serving, tmp_path: Path) -> None:
    for json_too in ((), ("--json",)):
        printed = did(served, "pool", "get-default-base-job-template", "--type", "docker", *json_too)
        assert json.loads(printed) == TEMPLATE
    asked = ("pool", "get-default-base-job-template", "--type", "docker", "--file")
    path = tmp_path / "template.json"
    assert did(served, *asked, str(path)) == f"wrote {path}\n"
    assert json.loads(path.read_text()) == TEMPLATE
    assert "cannot write " in failed(served, 1, *asked, str(tmp_path))


def test_queues_from_first_to_last(served: Serving) -> None:
    at = ("--pool", "etl")
    created = did(served, "queue", "create", "slow", *at, "--priority", "9", "--description", "at night")
    assert created == "created work queue slow in work pool etl, priority 9\n"
    assert did(served, "queue", "pause", "slow", *at) == "work queue slow is paused: it delivers no runs\n"
    assert did(served, "queue", "set-priority", "slow", "5", *at) == "work queue slow has priority 5\n"
    assert did(served, "queue", "set-concurrency-limit", "slow", "2", *at).endswith(" limit of 2\n")
    its = pools(served).read_queue("etl", "slow")
    assert (its.priority, its.concurrency_limit, its.is_paused, its.description) == (5, 2, True, "at night")
    assert did(served, "queue", "resume", "slow", *at) == "work queue slow is resumed: it delivers runs again\n"
    assert document(served, "queue", "clear-concurrency-limit", "slow", *at)["concurrency_limit"] is None
    assert did(served, "queue", "delete", "slow", *at, "--yes") == "deleted work queue slow of work pool etl\n"
    assert "default queue of etl" in failed(served, 1, "queue", "delete", "default", *at, "--yes")


def test_a_queue_without_a_pool_is_where_prefect_has_it(served: Serving) -> None:
    assert "name one with --pool" in failed(served, 4, "queue", "inspect", "q")
    assert document(served, "queue", "create", "q", "--concurrency-limit", "1")["pool"] == "default-agent-pool"
    assert document(served, "queue", "inspect", "q")["concurrency_limit"] == 1


# --- deleting ---------------------------------------------------------------------------------------------------------


def test_deleting_asks_on_a_terminal(served: Serving) -> None:
    status, shown = on_a_terminal(served, "pool", "delete", "etl", typed="\n")
    assert (status, shown) == (1, "\nDelete work pool etl with 2 queues? [y/N] not deleted\n")
    assert "etl" in pools(served).pools
    status, shown = on_a_terminal(served, "queue", "delete", "urgent", "--pool", "etl", typed="y\n")
    assert status == 0
    assert shown.endswith(
        "Delete work queue urgent of work pool etl? [y/N] deleted work queue urgent of work pool etl\n"
    )
    assert on_a_terminal(served, "pool", "delete", "nope", typed="y\n")[0] == 4
    status, shown = on_a_terminal(served, "pool", "delete", "gpu", typed="\x04")
    assert (status, "gpu" in pools(served).pools) == (1, True)


def test_deleting_elsewhere_wants_a_word(served: Serving) -> None:
    for words in (("pool", "delete", "etl"), ("queue", "delete", "urgent", "--pool", "etl")):
        assert "--yes" in failed(served, 2, *words)
    assert served.host.prefect.asked == []
    remark = "this host serves the pool: remove it from pools: in runnerd.yaml as well\n"
    assert did(served, "pool", "delete", "etl", "--yes", remark=remark) == "deleted work pool etl\n"
    assert document(served, "pool", "delete", "gpu", "--yes")["name"] == "gpu"
    assert pools(served).pools == {}


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["pool", "queue"])
def test_alone_it_prints_its_usage(served: Serving, verb: str) -> None:
    result = runnerctl(served, verb, "--json")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"usage: runnerctl {verb} ")
    assert "set-concurrency-limit" in result.err
    usage, _, error = result.err.rstrip("\n").rpartition("\n")
    assert error == f"runnerctl: no command is given; see runnerctl {verb} --help"
    assert runnerctl(served, verb, "--help").out.rstrip("\n") == usage
    assert runnerctl(served, verb, "pause", "--help").status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("pool", "crate"),
        ("pool", "inspect"),
        ("pool", "inspect", ""),
        ("pool", "inspect", "etl", "gpu"),
        ("pool", "set-concurrency-limit", "etl", "many"),
        ("pool", "update", "etl"),
        ("pool", "preview", "--hours", "87841"),
        ("pool", "get-default-base-job-template"),
        ("pool", "delete", "etl", "--y"),
        ("queue", "set-priority", "urgent", "0"),
        ("queue", "inspect", "urgent", "--pool", " "),
    ],
)
def test_a_wrong_command_line(served: Serving, arguments: tuple[str, ...]) -> None:
    failed(served, 2, *arguments)
    assert served.host.prefect.asked == []


def test_what_is_not_there(served: Serving) -> None:
    for words in (("pool", "inspect"), ("pool", "preview"), ("pool", "pause"), ("queue", "ls", "--pool")):
        assert "no work pool 'nope'" in failed(served, 4, *words, "nope")
    assert "no work queue 'nope' in work pool 'etl'" in failed(served, 4, "queue", "pause", "nope", "--pool", "etl")
    assert "no worker type" in failed(served, 4, "pool", "get-default-base-job-template", "--type", "nix")


def test_nobody_answers(served: Serving, tmp_path: Path) -> None:
    served.host.prefect.down = True
    assert "runnerctl status" in failed(served, 1, "pool", "ls")
    assert runnerctl(None, "pool", "ls", "--socket", str(tmp_path / "none")).status == 3
