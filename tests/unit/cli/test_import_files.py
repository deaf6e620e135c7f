"""What `runnerctl import` makes of a prefect.yaml, what it writes, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runnerd.cli.imports.drop_in import fit, name_file, write_text
from runnerd.cli.imports.found import Found, ImportRefused, Surroundings
from runnerd.cli.imports.origin import import_origin
from tests.kits.config import DEFAULTS

# --- prefect.yaml, and the text that is written -----------------------------------------------------------------


def project(tmp_path: Path, text: str) -> Found:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "etl.py").write_text("def nightly(): ...\n")
    (tmp_path / "prefect.yaml").write_text(text)
    return import_origin(str(tmp_path / "prefect.yaml"), python=None, environ={})


def test_what_is_refused_in_a_project_is_left_out_and_said(tmp_path: Path) -> None:
    found = project(
        tmp_path,
        "name: shop\nprefect-version: 3.0\nbuild: [{a: {b: c}}]\n"
        "deployments:\n- name: nightly\n  entrypoint: flows/etl.py:nightly\n  schedules: [{cron: '0 2 * * *'}]\n"
        "  parameters: {a: 1, b: '{{ $HOME }}'}\n  sla: [{name: x}]\n",
    )
    assert fit(found, defaults=DEFAULTS, directory=str(tmp_path)) == []
    assert found.deployments == [
        {
            "name": "nightly",
            "entrypoint": "flows/etl.py:nightly",
            "schedules": [{"cron": "0 2 * * *"}],
            "parameters": {"a": 1},
            "run": {"working_directory": str(tmp_path)},
        }
    ]
    said = "\n".join(str(one) for one in found.left_out)
    for words in (
        "prefect.yaml:3: build: not run",
        "sla: [{name: x}] (sla: not supported",
        "parameters.b: '{{ $HOME }}'",
    ):
        assert words in said
    text = write_text(found, origin="prefect.yaml")
    assert text.startswith("# Written by runnerctl import, of prefect.yaml.\n# Not carried over:\n#   ")
    assert yaml.safe_load(text)["deployments"] == found.deployments


def test_a_problem_of_the_host_stays_a_problem(tmp_path: Path) -> None:
    found = project(tmp_path, "deployments: [{name: a, entrypoint: flows/none.py:f}]\n")
    (problem,) = fit(found, defaults=DEFAULTS, directory=str(tmp_path))
    assert "entrypoint flows/none.py: no such file" in problem.message


def test_a_comment_has_no_line_of_somebody_elses() -> None:
    found = Found(deployments=[{"name": "a"}])
    found.leave_out("x\ny:1", "evil\nrun: {user: root}\u2028more\x1b[31m")
    text = write_text(found, origin="a\nb: c")
    assert yaml.safe_load(text) == {"deployments": [{"name": "a"}]}
    assert text.isprintable() or all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("flows/serve.py", "serve.yaml"),
        ("etl@x.service", "etl-x.yaml"),
        ("/opt/shop/prefect.yaml", "shop.yaml"),
        ("-", "nightly.yaml"),
        ("./../", "imported.yaml"),
    ],
)
def test_the_file_gets_a_plain_name(origin: str, name: str) -> None:
    assert name_file(origin, ["nightly"]) == name


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="there is no such file, and no unit of that name") as refused:
        import_origin("nothing-like-it", python=None, environ={"SYSTEMD_UNIT_PATH": str(tmp_path)})
    assert refused.value.status == 404
    with pytest.raises(ImportRefused, match=r"there is no such file$"):
        import_origin(str(tmp_path / "none.py"), python=None, environ={})


def test_root_is_no_user_of_an_entry() -> None:
    assert "user" not in Surroundings(place="x", directory="/", user="root").run_section(None)
    assert Surroundings(place="x", directory="/", user="etl").run_section("/p")["user"] == "etl"


# --- the program ----------------------------------------------------------------------------------------------


def ctl(*words: str, cwd: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "RUNNERD_FLOW_USER": "nobody"}
    argv = [sys.executable, "-m", "runnerd.cli", "--socket", str(cwd / "none.sock"), "import", *words]
    return subprocess.run(argv, cwd=cwd, env=environment, input=text, capture_output=True, text=True, timeout=300)


def test_a_line_of_standard_input_is_printed_and_written(tmp_path: Path) -> None:
    line = "@reboot /opt/venv/bin/prefect worker start --pool etl --name w\n"
    (tmp_path / "conf.d").mkdir()
    done = ctl("-", "--json", cwd=tmp_path, text=line)
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["pools"] == ["etl"]
    assert yaml.safe_load(document["drop_in"])["pools"][0]["name"] == "etl"
    assert [one["place"] for one in document["left_out"]] == ["standard input:1"]
    assert "not carried over: standard input:1: --name w" in done.stderr
    assert done.returncode == 1  # there is no /opt/venv/bin/python here
    assert document["written"] is None


def test_exit_statuses(tmp_path: Path) -> None:
    assert ctl("nothing.py", cwd=tmp_path).returncode == 4
    assert ctl(cwd=tmp_path).returncode == 2
    (tmp_path / "two.service").write_text("[Service]\nExecStart=/bin/a\nExecStart=/bin/b\n")
    refused = ctl("two.service", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("runnerctl: cannot import two.service: it has 2 ExecStart=")
    assert refused.stderr.count("\n") == 1


def test_an_existing_drop_in_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "runnerd.yaml").write_text(
        f"api: {{url: 'http://127.0.0.1:4200/api'}}\nrun: {{python: {sys.executable}}}\n"
    )
    unit = "[Service]\nUser=nobody\nExecStart=/nowhere/prefect worker start --pool etl\n"
    (tmp_path / "etl.service").write_text(unit.replace("/nowhere", str(Path(sys.executable).parent)))
    written = tmp_path / "conf.d" / "etl.yaml"
    first = ctl("etl.service", "--write", "conf.d", cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, ""), first.stderr
    assert yaml.safe_load(written.read_text())["pools"][0]["name"] == "etl"
    second = ctl("etl.service", "--write", "conf.d", cwd=tmp_path)
    assert second.returncode == 1
    assert (
        second.stderr.splitlines()[-1]
        == "runnerctl: cannot write conf.d/etl.yaml: it exists; remove it, or name another directory"
    )


def test_what_a_project_does_not_name_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "etl.py").write_text("def f(): ...\n")
    text = "deployments:\n- {entrypoint: 'etl.py:f'}\n- {name: null, entrypoint: null}\n- 7\n"
    (tmp_path / "prefect.yaml").write_text(text)
    done = ctl("prefect.yaml", "--json", cwd=tmp_path)
    document: dict[str, Any] = json.loads(done.stdout)
    assert "Traceback" not in done.stderr
    assert [one["entrypoint"] for one in yaml.safe_load(document["drop_in"])["deployments"]] == ["etl.py:f"]
    said = [one["message"] for one in document["left_out"]]
    assert said == ["a deployment without a name has no entrypoint", "entry 3 of deployments is not a map"]


# An interpreter whose answer is a hostile script's.
ANSWERS = """#!/bin/sh
exec %s -c 'import json, os
work = json.loads(os.environ["RUNNERD_RECORD"])
run = {"user": "root", "limit": 2, "python": "/evil"}
entry = {"name": "a", "entrypoint": "serve.py:f", "notices": {"on_failure": [{"command": ["/evil"]}]}, "run": run}
served = [{"line": 3, "entry": entry}]
answer = {"ok": {"prefect_version": "3.9.1", "deployments": served, "left_out": []}}
os.write(work["answers"], json.dumps(answer).encode())'
"""


def test_a_script_does_not_say_as_whom_its_flows_run(tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text("def f(): ...\n")
    python = tmp_path / "python"
    python.write_text(ANSWERS % sys.executable)
    python.chmod(0o755)
    document: dict[str, Any] = json.loads(ctl("serve.py", "--json", "--python", str(python), cwd=tmp_path).stdout)
    (entry,) = yaml.safe_load(document["drop_in"])["deployments"]
    assert entry["run"]["limit"] == 2
    assert entry["run"]["python"] == str(python)
    assert entry["run"].get("user") != "root"
    assert "notices" not in entry
    said = "\n".join(one["message"] for one in document["left_out"])
    for key in ("run.user", "run.python", "notices"):
        assert f"{key}: unknown key in what a script says" in said
