"""Every verb of the real runnerctl against the real control server: what it prints, asks for, and exits with."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd import __version__
from runnerd.control.fields import DEPLOYMENT_FIELDS, RUN_FIELDS, STATUS_FIELDS
from tests.kits.fakes.fake_documents import LATER, STAMP, ended
from tests.kits.fakes.runnerctl import runnerctl
from tests.kits.fakes.serving import Serving, serving

RUN_A = "aaaa1111-0000-4000-8000-000000000001"
RUN_B = "aaaa2222-0000-4000-8000-000000000002"
OVER = "cccc3333-0000-4000-8000-000000000003"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        it.call(it.host.runs.put, RUN_A, name="wonderful-crab")
        it.call(it.host.runs.put, RUN_B, deployment="hourly")
        it.call(it.host.runs.put, OVER, name="finished", **ended())
        it.call(it.host.deployments.put, "d-1", "nightly")
        it.call(it.host.deployments.put, "d-2", "hourly", state="invalid", problem="no such file", limit=None)
        yield it


def document(served: Serving, *arguments: str, status: int = 0) -> object:
    """What --json prints: one document and nothing else, on either stream."""
    result = runnerctl(served, *arguments, "--json")
    assert (result.status, result.err) == (status, "")
    return json.loads(result.out)


# --- looking -------------------------------------------------------------------------------------------------


def test_status_of_an_api_in_maintenance(served: Serving) -> None:
    host = served.host
    host.api_state, host.api_detail, host.maintenance = "degraded", "in maintenance: back at 5", True
    words = "in maintenance http://127.0.0.1:4200/api since 2026-08-20T10:00:00+00:00"
    assert f"{words}: back at 5\n" in runnerctl(served, "status").out
    host.api_detail = "in maintenance"
    assert f"{words}\n" in runnerctl(served, "status").out


def test_status_at_a_glance(served: Serving) -> None:
    served.host.api_state = "unreachable"
    place = {"file": "/etc/runnerd/conf.d/30-x.yaml", "line": 4, "column": 5, "deployment": None}
    served.host.problems = [{"message": "unknown key", **place}]
    served.call(served.host.drain, timeout_s=None, reason="new kernel", peer=None)
    result = runnerctl(served, "status")
    assert (result.status, result.err) == (0, "")
    for words in (
        "build-07",
        "9.9.9",
        "unreachable http://127.0.0.1:4200/api since 2026-08-20T10:00:00+00:00: connection refused",
        "new kernel; runnerctl undrain ends the drain",
        "2 of 10",
        "gpu 0 of 1",
        RUN_A,
        "wonderful-crab",
        "no such file",
        "/etc/runnerd/conf.d/30-x.yaml:4:5: unknown key",
    ):
        assert words in result.out
    assert "\x1b" not in result.out
    assert "\t" not in result.out


def test_status_of_an_idle_host(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        result = runnerctl(served, "status")
    assert result.status == 0
    assert "No runs." in result.out
    assert "No deployments." in result.out


def test_status_shows_what_waits_and_for_what(served: Serving) -> None:
    why = "limits.runs 1 is reached: its parent run old-otter holds the only slot, and may wait for this run"
    its = {"name": "shy-owl", "deployment": "nightly", "flow": "etl", "pool": None, "queue": None, "due_at": STAMP}
    more = {"phase": None, "waiting": why, "parent": None}
    served.host.waiting = [{"id": f"{number:08}-x", **its, **more} for number in range(25)]
    lines = runnerctl(served, "status").out.splitlines()
    assert next(line for line in lines if line.startswith("Waiting:")).split(maxsplit=1)[1] == "25 runs, see below"
    assert f"00000000-x   shy-owl  nightly     {STAMP}  {why}" in lines
    assert "and 5 more" in lines


def test_status_as_a_document(served: Serving) -> None:
    status = document(served, "status")
    assert isinstance(status, dict)
    assert set(status) == STATUS_FIELDS
    assert status == served.call(served.host.status)
    run, deployment = document(served, "status", "aaaa1"), document(served, "status", "nightly")
    assert isinstance(run, dict)
    assert isinstance(deployment, dict)
    assert set(run) == RUN_FIELDS
    assert set(deployment) == DEPLOYMENT_FIELDS


def test_status_of_one_run_and_one_deployment(served: Serving) -> None:
    run = runnerctl(served, "status", "finished")
    assert run.status == 0
    assert f"Run:        {OVER}\n" in run.out
    assert "Verdict:    Completed after 12s\n" in run.out
    deployment = runnerctl(served, "status", "etl/hourly")
    assert deployment.status == 0
    assert "Problem:    no such file\n" in deployment.out
    assert f"Next run:   {LATER}\n" in deployment.out
    neither = runnerctl(served, "status", "neither")
    assert neither.status == 4
    assert neither.err.startswith("runnerctl: there is no run or deployment 'neither'; see ")


def test_runs(served: Serving) -> None:
    lines = runnerctl(served, "runs").out.splitlines()
    assert lines[0].split() == ["RUN", "NAME", "DEPLOYMENT", "PHASE", "PID", "STARTED", "MEMORY", "CPU"]
    assert [line.split()[0] for line in lines[1:]] == [RUN_A, RUN_B]
    lines = runnerctl(served, "runs", "--all").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [RUN_A, RUN_B, OVER]
    assert "Completed" in lines[3]
    found = document(served, "runs", "--all", "--state", "completed", "--deployment", "nightly")
    assert isinstance(found, list)
    assert [run["id"] for run in found] == [OVER]
    assert runnerctl(served, "runs", "--deployment", "nihgtly").status == 4
    nothing = runnerctl(served, "runs", "--state", "killing")
    assert (nothing.status, nothing.out) == (0, "")


def test_deployments(served: Serving) -> None:
    lines = runnerctl(served, "deployments").out.splitlines()
    assert [line.split()[0] for line in lines] == ["DEPLOYMENT", "nightly", "hourly"]
    found = document(served, "deployments")
    assert isinstance(found, list)
    assert [set(its) for its in found] == [set(DEPLOYMENT_FIELDS)] * 2


def test_health(served: Serving) -> None:
    assert runnerctl(served, "health").status == 0
    served.host.well = False
    result = runnerctl(served, "health")
    assert result.status == 1
    assert "disk full" in result.out
    assert document(served, "health", status=1) == {
        "ok": False,
        "checks": [{"name": "journal", "ok": False, "detail": "disk full"}],
    }


def test_version(served: Serving) -> None:
    assert runnerctl(served, "version").out == f"runnerctl {__version__}\nrunnerd   9.9.9\n"
    assert document(served, "version") == {"runnerctl": __version__, "runnerd": "9.9.9"}
    assert runnerctl(None, "--version").out == f"runnerctl {__version__}\n"


# --- changing ------------------------------------------------------------------------------------------------


def test_cancel(served: Serving) -> None:
    result = runnerctl(served, "cancel", "wonderful-crab", "finished")
    assert result.status == 0
    assert result.out == f"wonderful-crab ({RUN_A}): cancelling\nfinished ({OVER}): already Completed\n"
    assert served.host.asked == [("cancel", {"runs": [RUN_A, OVER], "now": False})]


def test_cancel_of_a_deployment_now_and_of_all(served: Serving) -> None:
    answer = document(served, "cancel", "--deployment", "etl/nightly", "--now")
    assert isinstance(answer, dict)
    assert [run["phase"] for run in answer["runs"]] == ["killing"]
    assert runnerctl(served, "cancel", "--all").status == 0
    asked = [about for _, about in served.host.asked]
    assert asked == [{"runs": [RUN_A], "now": True}, {"runs": [RUN_A, RUN_B], "now": False}]


def test_cancel_when_there_is_nothing_to_cancel(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        result = runnerctl(served, "cancel", "--all")
    assert (result.status, result.out) == (0, "nothing is running\n")


def test_cancel_needs_to_know_what(served: Serving) -> None:
    for arguments in ((), ("--all", "aaaa1"), ("--all", "--deployment", "nightly")):
        result = runnerctl(served, "cancel", *arguments)
        assert result.status == 2
        advice = "give one of RUN..., --deployment D and --all"
        assert result.err == f"runnerctl: cannot cancel: no runs named, or in two ways; {advice}\n"
    ambiguous = runnerctl(served, "cancel", "aaaa")
    assert ambiguous.status == 1
    assert RUN_A in ambiguous.err
    assert RUN_B in ambiguous.err
    assert runnerctl(served, "cancel", "aaaa1", "nobody").status == 4
    assert served.host.asked == []


def test_run(served: Serving) -> None:
    arguments = ("-p", "n=5", "-p", "where=eu", "-p", 'deep={"a": [1]}', "-p", "text=5x", "-p", "empty=")
    result = runnerctl(served, "run", "nightly", *arguments, "--name", "now", "--tag", "a", "--tag", "b")
    assert result.status == 0
    assert result.out.startswith("created run now (")
    parameters = {"n": 5, "where": "eu", "deep": {"a": [1]}, "text": "5x", "empty": ""}
    asked = {"deployment": "d-1", "parameters": parameters, "name": "now", "tags": ["a", "b"]}
    assert served.host.asked == [("run", asked)]
    created = document(served, "run", "etl/nightly")
    assert isinstance(created, dict)
    assert created["phase"] is None


def test_run_with_parameters_from_a_file(served: Serving, tmp_path: Path) -> None:
    large = {"rows": ["x" * 100] * 5000, "day": "2026-01-02"}
    for name, text in (
        ("a.json", json.dumps(large)),
        ("a.yaml", "day: 2026-01-02\nrows:\n" + f"- {'x' * 100}\n" * 5000),
    ):
        (tmp_path / name).write_text(text)
        assert runnerctl(served, "run", "nightly", "--params", str(tmp_path / name)).status == 0
        assert served.host.asked.pop()[1]["parameters"] == large
    assert runnerctl(served, "run", "nightly", "--params", "-", "-p", "a=2", stdin="{a: 1, b: [x]}").status == 0
    assert served.host.asked.pop()[1]["parameters"] == {"a": 2, "b": ["x"]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [1\n", "standard input:1:4: the [ opened here is never closed"),
        ("a: 1\na: 2\n", "standard input:2:1: "),
        ('{"a": NaN}', "standard input:1:7: NaN is not JSON"),
        ("- a\n", "cannot use the parameters in standard input: a map of names to values is needed"),
        ("[" * 100_000, "cannot read the parameters: standard input:1:"),
        ('{"a": "' + "x" * (1 << 20) + '"}', "more than 1 MiB"),
    ],
)
def test_parameters_that_cannot_be_read(served: Serving, text: str, why: str) -> None:
    result = runnerctl(served, "run", "nightly", "--params", "-", stdin=text)
    assert result.status == 2 and why in result.err and result.err.count("\n") == 1
    assert served.host.asked == []


def test_two_files_of_parameters(served: Serving, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    result = runnerctl(served, "run", "nightly", "--params", str(tmp_path / "a.json"), "--params", "b.json")
    assert (result.status, "cannot use --params twice" in result.err) == (2, True)
    assert served.host.asked == []


@pytest.mark.parametrize("pair", ['deep={"a": 1', "deep=[1,", 'deep="open', "deep", "=5"])
def test_a_parameter_that_is_no_json_is_named(served: Serving, pair: str) -> None:
    result = runnerctl(served, "run", "nightly", "-p", pair)
    assert result.status == 2
    assert ("deep" in result.err) == ("deep" in pair)
    assert served.host.asked == []


def test_pull_and_revert(served: Serving) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    source = {"kind": "git", "url": "https://git.example/x.git", "commit": commit, "pulled_at": STAMP, "problem": None}
    served.call(served.host.deployments.put, "d-3", "sourced", source={**source, "held": None})
    assert runnerctl(served, "pull", "sourced").out == "sourced is at 0123456789ab\n"
    assert runnerctl(served, "revert", "sourced", "--release").out == "sourced is at 0123456789ab\n"
    assert "0123456789ab" in runnerctl(served, "deployments").out
    assert commit in runnerctl(served, "status", "sourced").out
    served.call(served.host.deployments.put, "d-3", "sourced", source={**source, "held": commit})
    held = "sourced is at 0123456789ab, held until: runnerctl revert sourced --release\n"
    assert runnerctl(served, "revert", "sourced").out == held
    assert runnerctl(served, "revert", "sourced", "0123").out == held
    assert "0123456789ab (held)" in runnerctl(served, "deployments").out
    both = runnerctl(served, "revert", "sourced", "0123", "--release")
    assert (both.status, both.err) == (2, "runnerctl: a commit and --release exclude each other\n")
    assert served.host.asked == [
        ("pull", ["sourced", None, False]),
        ("revert", ["sourced", None, True]),
        ("revert", ["sourced", None, False]),
        ("revert", ["sourced", "0123", False]),
    ]


def test_execute_pause_resume_drain_undrain_reload(served: Serving) -> None:
    assert runnerctl(served, "execute", RUN_A).out == f"executing run given-run ({RUN_A})\n"
    assert runnerctl(served, "execute", "--again", RUN_A).out == f"executing run given-run ({RUN_A})\n"
    assert runnerctl(served, "pause", "nightly").out == "nightly is paused\n"
    assert runnerctl(served, "resume", "etl/nightly").out == f"nightly is resumed; next run {LATER}\n"
    drained = runnerctl(served, "drain", "--timeout", "1h 30min", "--reason", "x").out
    assert drained.startswith("draining: no new runs are claimed, 2 runs are still running and will be")
    assert f"will be stopped at {LATER}; runnerctl undrain ends the drain" in drained
    assert f"live runs will be stopped at {LATER}: x; " in runnerctl(served, "status").out
    runnerctl(served, "drain", "--timeout", "infinity")
    assert runnerctl(served, "undrain").out == "not draining: runs are claimed again\n"
    told = "added    fresh\nadded    pool etl\nchanged  nightly\nremoved  pool old\n3 unchanged\n"
    assert runnerctl(served, "reload").out == told
    assert runnerctl(served, "reload", "--inspect").out == told
    assert served.host.asked == [
        ("execute", RUN_A),
        ("execute --again", RUN_A),
        ("pause", "d-1"),
        ("resume", "d-1"),
        ("drain", {"timeout_s": 5400.0, "reason": "x"}),
        ("drain", {"timeout_s": None, "reason": None}),
        ("undrain", None),
        ("reload", None),
        ("reload --inspect", None),
    ]
