"""What `runnerctl import` makes of units, crontabs and Prefect's commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runnerd.cli.imports.commands import read_command, read_shell
from runnerd.cli.imports.crontab import read_crontab
from runnerd.cli.imports.drop_in import write_text
from runnerd.cli.imports.found import Found, ImportRefused
from runnerd.cli.imports.origin import import_origin
from runnerd.cli.imports.unit import find_unit, read_exec, read_unit

# --- commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind", "arguments"),
    [
        ("/opt/etl/venv/bin/prefect worker start --pool etl", "worker", ("--pool", "etl")),
        ("prefect --profile prod worker start -p etl", "worker", ("-p", "etl")),
        ("python3 -m prefect agent start -q nightly", "agent", ("-q", "nightly")),
        ("prefect flow serve flows.py:f --name x", "serve", ("flows.py:f", "--name", "x")),
        (
            "/usr/bin/env A=1 nice -n 5 /opt/venv/bin/python -u -W ignore serve.py --env prod",
            "script",
            ("--env", "prod"),
        ),
        ("sudo -u etl sh -c 'cd /opt/etl && exec ./serve.py'", "script", ()),
        ("uv run prefect worker start --pool etl", "worker", ("--pool", "etl")),
        ("/usr/local/bin/backup --full", None, ()),
        ("python -m http.server", None, ()),
        ("python -c 'import os'", None, ()),
        ("prefect deployment run a/b", None, ("run", "a/b")),
    ],
)
def test_a_command_is_recognised(line: str, kind: str | None, arguments: tuple[str, ...]) -> None:
    command = read_shell(line)
    assert command.kind == kind
    if kind is not None:
        assert command.arguments == arguments


def test_a_shell_line_says_where_and_in_which_environment() -> None:
    command = read_shell(
        "cd /opt/etl && . venv/bin/activate && export A=1 && B=2 python flows/serve.py >> /var/log/etl 2>&1; echo done"
    )
    assert (command.kind, command.script, command.arguments) == ("script", "flows/serve.py", ())
    assert (command.directory, command.activated) == ("/opt/etl", "venv")
    assert command.environment == {"A": "1", "B": "2"}
    assert command.others == ("echo done",)


def test_shells_within_shells_end() -> None:
    words = ["true"]
    for _ in range(20):
        words = ["sh", "-c", subprocess.list2cmdline(words) if len(words) == 1 else "sh -c true"]
    assert read_command(words).kind is None


def test_an_open_quote_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="quotation"):
        read_shell("prefect worker start --pool 'etl")


# --- units ----------------------------------------------------------------------------------------------------

UNIT = """
[Unit]
Description=A worker
After=network-online.target

[Service]
User=etl
Group=etl
WorkingDirectory=/opt/etl
Environment="LOG_LEVEL=DEBUG" PREFECT_API_URL=http://prefect.test/api "PREFECT_API_KEY=pnu_secret"
EnvironmentFile=-/etc/default/etl
EnvironmentFile=/etc/default/more
ExecStartPre=/bin/true
ExecStart=/opt/etl/venv/bin/prefect worker start --pool etl \\
    --work-queue high -q default --limit 4 --name w1 --prefetch-seconds 20
MemoryMax=2G
Nice=5
LimitNOFILE=4096
KillSignal=SIGINT
TimeoutStopSec=90
PrivateTmp=yes
Restart=always

[Install]
WantedBy=multi-user.target
"""


def import_unit(tmp_path: Path, text: str, name: str = "etl.service") -> Found:
    (tmp_path / name).write_text(text)
    return import_origin(str(tmp_path / name), python=None, environ={})


def test_a_worker_unit_is_a_pool(tmp_path: Path) -> None:
    found = import_unit(tmp_path, UNIT)
    assert found.pools == [
        {
            "name": "etl",
            "queues": ["high", "default"],
            "limit": 4,
            "prefetch": "20s",
            "run": {
                "python": "/opt/etl/venv/bin/python",
                "user": "etl",
                "group": "etl",
                "environment": {"LOG_LEVEL": "DEBUG"},
                "environment_file": "/etc/default/etl",
                "memory_max": "2G",
                "nice": 5,
                "limit_nofile": "4096",
                "stop_signal": "SIGINT",
                "stop_timeout": "90",
            },
        }
    ]
    left_out = "\n".join(str(one) for one in found.left_out)
    for said in (
        f"{tmp_path}/etl.service:13: ExecStartPre=/bin/true",
        "PrivateTmp=yes",
        "EnvironmentFile=/etc/default/more: run.environment_file is one file",
        "MemoryMax=2G bounds all runs of the unit together",
        "PREFECT_API_URL=http://prefect.test/api: api.url of runnerd.yaml",
        "PREFECT_API_KEY: api.key_file of runnerd.yaml (the value is not shown)",
        "--name w1: the worker has the name of the host",
    ):
        assert said in left_out
    assert "pnu_secret" not in left_out + write_text(found, origin="etl.service")
    assert "Restart" not in left_out


def test_a_unit_with_two_commands_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"it has 2 ExecStart= \(.*:2 and .*:3\), and each starts another program"):
        import_unit(tmp_path, "[Service]\nExecStart=/bin/a\nExecStart=/bin/b\n")


def test_a_drop_in_of_a_unit_replaces_its_command(tmp_path: Path) -> None:
    (tmp_path / "a@.service").write_text("[Service]\nExecStart=/bin/a\nUser=x\n")
    (tmp_path / "a@.service.d").mkdir()
    more = "[Service]\nExecStart=\nExecStart=prefect worker start --pool %i\n"
    (tmp_path / "a@.service.d" / "10.conf").write_text(more)
    unit = find_unit("a@etl", {"SYSTEMD_UNIT_PATH": str(tmp_path)})
    assert unit is not None
    assert read_exec(unit) == (["prefect", "worker", "start", "--pool", "etl"], f"{tmp_path}/a@.service.d/10.conf:3")
    assert find_unit("b", {"SYSTEMD_UNIT_PATH": str(tmp_path)}) is None


def test_a_unit_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"cannot import etl\.service: it starts none of prefect worker start"):
        import_unit(tmp_path, "[Service]\nExecStart=/usr/sbin/nginx -g 'daemon off;'\n")
    with pytest.raises(ImportRefused, match="it has no ExecStart="):
        import_unit(tmp_path, "[Service]\nUser=etl\n")


def test_a_unit_without_a_user_does_not_make_flows_run_as_root(tmp_path: Path) -> None:
    found = import_unit(tmp_path, "[Service]\nExecStart=/opt/venv/bin/prefect agent start -m dev- -m test-\n")
    (pool,) = found.pools
    assert pool["name"], pool["type"] == ("default-agent-pool", "prefect-agent")
    assert pool["match"] == ["dev-", "test-"]
    assert pool["run"] == {"python": "/opt/venv/bin/python"}
    assert any("it runs as root" in one.message for one in found.left_out)


def test_a_served_flow_is_a_deployment(tmp_path: Path) -> None:
    command = (
        "/opt/venv/bin/prefect flow serve ./flows.py:etl --name nightly --cron '0 2 * * *' --timezone Europe/Berlin"
        " --tag a -t b --limit 2 --global-limit 3 --description Nightly --version 7"
        " --pause-on-shutdown"
    )
    found = import_unit(tmp_path, f"[Service]\nUser=etl\nWorkingDirectory=/opt/etl\nExecStart={command}\n")
    assert found.deployments == [
        {
            "name": "nightly",
            "entrypoint": "flows.py:etl",
            "schedules": [{"cron": "0 2 * * *", "timezone": "Europe/Berlin"}],
            "description": "Nightly",
            "version": "7",
            "tags": ["a", "b"],
            "concurrency_limit": 3,
            "pause_on_shutdown": True,
            "run": {"python": "/opt/venv/bin/python", "user": "etl", "working_directory": "/opt/etl", "limit": 2},
        }
    ]


def test_an_option_that_is_no_number_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"etl\.service:2: prefect flow serve: argument --interval: invalid float"):
        import_unit(tmp_path, "[Service]\nExecStart=prefect flow serve f.py:f --name x --interval daily\n")


def test_a_served_flow_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match=r"etl\.service:2: prefect flow serve needs --name"):
        import_unit(tmp_path, "[Service]\nExecStart=prefect flow serve f.py:f\n")


def test_a_worker_without_a_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportRefused, match="prefect worker start needs --pool"):
        import_unit(tmp_path, "[Service]\nExecStart=prefect worker start\n")


def test_a_link_between_units_ends_somewhere(tmp_path: Path) -> None:
    (tmp_path / "a.service").symlink_to(tmp_path / "a.service")
    with pytest.raises(ImportRefused, match="cannot read the unit"):
        read_unit(str(tmp_path / "a.service"))


# --- crontabs -------------------------------------------------------------------------------------------------


def test_the_lines_of_a_crontab() -> None:
    text = (
        "# a comment\nMAILTO=root\nLEVEL='3'\n\n*/5 * * * * prefect agent start --run-once -q nightly\n"
        "@reboot cd /opt && prefect worker start -p etl\n0 2 * * * echo 100\\% done\n"
    )
    lines = list(read_crontab(text, path=None))
    assert [(line.number, line.times, line.user) for line in lines] == [
        (5, "*/5 * * * *", None),
        (6, "@reboot", None),
        (7, "0 2 * * *", None),
    ]
    assert lines[0].command == "prefect agent start --run-once -q nightly"
    assert lines[0].environment == {"LEVEL": "3"}
    assert lines[2].command == "echo 100% done"
    (of_system,) = read_crontab("0 2 * * * etl prefect agent start -q x\n", path="/etc/cron.d/etl")
    assert (of_system.user, of_system.command) == ("etl", "prefect agent start -q x")
    (of_user,) = read_crontab("@daily prefect agent start -q x\n", path="/var/spool/cron/crontabs/etl")
    assert of_user.user == "etl"


def test_a_crontab_of_agents_is_pools(tmp_path: Path) -> None:
    path = tmp_path / "crontab"
    path.write_text("*/5 * * * * prefect agent start --run-once -q nightly\n0 3 * * * /usr/local/bin/backup\n")
    found = import_origin(str(path), python=None, environ={})
    assert [(pool["name"], pool["queues"]) for pool in found.pools] == [("default-agent-pool", ["nightly"])]
    said = [str(one) for one in found.left_out]
    assert any(f"{path}:2: starts none of prefect worker start" in one for one in said)
    assert any(f"{path}:1: */5 * * * *: the pool is served all the time; remove the line" in one for one in said)


def test_a_crontab_without_prefect_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "crontab"
    path.write_text("0 3 * * * /usr/local/bin/backup\n")
    with pytest.raises(ImportRefused, match="no line starts prefect worker start"):
        import_origin(str(path), python=None, environ={})


@pytest.mark.parametrize("name", ["job.service", "crontab"])
def test_a_script_that_names_nothing_that_serves_is_not_run(tmp_path: Path, name: str) -> None:
    """To read a script is to run it: a clean-up in a crontab would clean up."""
    mark, job, origin = tmp_path / "mark", tmp_path / "job.py", tmp_path / name
    job.write_text(f"open({str(mark)!r}, 'w')\n")
    command = f"{sys.executable} {job}"
    origin.write_text(f"[Service]\nExecStart={command}\n" if name != "crontab" else f"0 3 * * * {command}\n")
    with pytest.raises(ImportRefused, match=r"job\.py: it names neither serve\(\) nor a Runner, so it was not run"):
        import_origin(str(origin), python=None, environ={})
    assert not mark.exists()
