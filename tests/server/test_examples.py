"""Each example of etc/examples does what its text says, on a whole host; only paths, users and the URL are others."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kits.checkout import ROOT
from tests.kits.daemon import Api, Host, eventually
from tests.kits.git_server import Repository, serving_git
from tests.kits.prefect_servers import ENVS, PrefectServer

pytestmark = pytest.mark.server
EXAMPLES = ROOT / "etc" / "examples"
URL = "http://127.0.0.1:4200/api"
TESTED = {"nightly-etl", "gpu", "pool-host", "embedded-server", "git-source", "shell-backup"}
Make = Callable[..., Host]


@pytest.fixture
def make() -> Iterator[Make]:
    """Hosts with the files of an example, gone at the end of the test."""
    hosts: list[Host] = []

    def one(example: str, server: PrefectServer) -> Host:
        host = Host(url=server.url, python=server.python)
        hosts.append(host)
        copy(EXAMPLES / example, host, server)
        return host

    yield one
    for host in hosts:
        host.close()


def copy(example: Path, host: Host, server: PrefectServer) -> None:
    """Put the example's files where the host reads them, with a user, an interpreter and directories that are here."""
    shutil.copytree(example, host.config, dirs_exist_ok=True)
    opt = host.root / "opt"
    if (example / "flows" / "etl.py").exists():
        shutil.copytree(example / "flows", opt)
    for path in host.config.rglob("*.yaml"):
        text = path.read_text().replace(URL, server.url).replace("/opt/etl/venv/bin/python", server.python)
        text = text.replace("/opt/etl", str(opt)).replace("user: etl", f"user: {getpass.getuser()}")
        path.write_text(text)
    main = host.config / "runnerd.yaml"
    own = f"run: {{python: '{server.python}', environment: {{PREFECT_HOME: '{host.root}/prefect-home'}}}}\n"
    main.write_text(main.read_text().replace("127.0.0.1:9464", f"127.0.0.1:{free_port()}") + own)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def settled(host: Host, *names: str) -> None:
    host.start()
    host.registered(*names)
    assert [one for one in host.json("status")["problems"] if "automations" not in one["message"]] == []


def test_every_example_is_tested_and_listed() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == TESTED
    text = (EXAMPLES / "README.md").read_text()
    assert all(f"| [{name}]({name}) |" in text for name in folders)


def test_a_nightly_etl(prefect: PrefectServer, make: Make) -> None:
    host = make("nightly-etl", prefect)
    settled(host, "nightly")
    run = host.ended(host.run_now("nightly", region="us"))
    assert (run["api_state"], run["user"]) == ("COMPLETED", getpass.getuser())
    assert "us: 3 rows" in host.ctl("logs", run["id"]).stdout
    deployment = host.api.deployment("nightly", "nightly")
    assert deployment["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    if prefect.major == 3:
        found = host.api.call("GET", f"/automations/related-to/prefect.deployment.{deployment['id']}")
        assert [one["trigger"]["expect"] for one in found] == [["sales.files.arrived"]]


def test_one_gpu(prefect3: PrefectServer, make: Make) -> None:
    host = make("gpu", prefect3)
    settled(host, "train", "embed", "report")
    training = host.run_now("train", seconds=600)
    host.running(training)
    waiting, other = host.run_now("embed"), host.run_now("report")
    assert host.ended(other)["api_state"] == "COMPLETED"

    def why() -> Any:
        return host.document(waiting)["waiting"]

    assert "gpu" in eventually(why, "the run to wait", log=host.said)
    host.ctl("cancel", training)
    assert host.ended(waiting)["api_state"] == "COMPLETED"
    assert "embedding on GPU 0" in host.ctl("logs", waiting).stdout


def test_a_pool_host(prefect3: PrefectServer, make: Make, tmp_path: Path) -> None:
    host, api = make("pool-host", prefect3), Api(prefect3.url)
    host.start()
    eventually(lambda: api.call("GET", "/work_pools/etl"), "the pool to be made", log=host.said)
    eventually(lambda: api.call("GET", "/work_pools/etl/queues/high"), "its queue to be made", log=host.said)
    (tmp_path / "flows.py").write_text("from prefect import flow\n\n@flow\ndef pooled():\n    print('in the pool')\n")
    pool = {"name": "etl", "work_queue_name": "high"}
    one = {"name": "pooled", "entrypoint": "flows.py:pooled", "work_pool": pool}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({"name": "p", "deployments": [one]}))
    command = [str(Path(prefect3.python).with_name("prefect")), "--no-prompt", "deploy", "--all"]
    subprocess.run(command, cwd=tmp_path, env=prefect3.environment, check=True, capture_output=True, timeout=300)
    deployment_id = api.deployment("pooled", "pooled")["id"]
    made = api.call("POST", f"/deployments/{deployment_id}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    run = host.ended(made["id"])
    assert (run["api_state"], run["user"]) == ("COMPLETED", getpass.getuser())


def test_code_from_git(prefect3: PrefectServer, make: Make, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "srv")
    code = "from prefect import flow\n\n@flow\ndef etl():\n    print('version', {}, flush=True)\n"
    first = repository.commit({"flows/etl.py": code.format(1)})
    with serving_git(repository.path.parent) as server:
        host = make("git-source", prefect3)
        path = host.config / "conf.d" / "20-etl.yaml"
        path.write_text(path.read_text().replace("https://git.example/etl.git", server.url()))
        settled(host, "hourly")
        run = host.ended(host.run_now("hourly"))
        assert (run["api_state"], run["source"]["commit"]) == ("COMPLETED", first)
        assert "version 1" in host.ctl("logs", run["id"]).stdout
        second = repository.commit({"flows/etl.py": code.format(2)})
        host.ctl("pull", "hourly")
        assert host.ended(host.run_now("hourly"))["source"]["commit"] == second


def test_a_backup(prefect3: PrefectServer, make: Make, tmp_path: Path) -> None:
    """On a host without an interpreter that has Prefect; what the system's log would get is in a file."""
    host = make("shell-backup", prefect3)
    log, saved = tmp_path / "log", tmp_path / "saved"
    saved.mkdir()
    (logger := tmp_path / "logger").write_text(f'#!/bin/sh\necho "$4" >> {log}\n')
    logger.chmod(0o755)
    path = host.config / "conf.d" / "20-backup.yaml"
    text = path.read_text().replace("user: root", f"user: {getpass.getuser()}").replace("[logger,", f"[{logger},")
    text = text.replace("[mountpoint, --quiet, /var/backups]", f"[test, -d, {saved}]")
    text = text.replace("/var/backups", str(saved)).replace("/mnt/backups", str(tmp_path / "none"))
    path.write_text(text.replace("/etc/runnerd]", f"{host.config}]").replace("10min", "1s"))
    settled(host, "backup")
    run = host.ended(host.run_now("backup"))
    assert (run["api_state"], run["kind"]) == ("COMPLETED", "command")
    assert (saved / "etc.tar.zst").stat().st_size > 0
    eventually(lambda: log.exists() and f"{run['name']} is Completed" in log.read_text(), "run.after", log=host.said)
    failing = host.run_now("backup", to=str(tmp_path / "none"))
    name = host.document(failing)["name"]
    eventually(
        lambda: f"{name} has failed: exited 2" in log.read_text(), "the notice of the last attempt", log=host.said
    )
    assert host.ended(failing)["attempt"] == 3
    assert log.read_text().count(f"{name} has failed") == 1, "an attempt that is retried is no end"


def python_with_prefect(folder: Path) -> str:
    """An interpreter that has runnerd, its libraries, and Prefect."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=300)
    (site,) = folder.glob("lib/python3*/site-packages")
    (prefects,) = (ENVS / "prefect3").glob("lib/python3*/site-packages")
    (site / "all.pth").write_text(f"{ROOT}\n{sysconfig.get_paths()['purelib']}\n{prefects}\n")
    return str(folder / "bin" / "python")


class Alone(Host):
    """A host whose runnerd runs under another interpreter."""

    program = sys.executable

    @property
    def argv(self) -> list[str]:
        return [self.program, *super().argv[1:]]


def test_a_host_with_an_embedded_server(tmp_path: Path) -> None:
    host = Alone(url="embedded", python="unused")
    try:
        host.program = python_with_prefect(tmp_path / "venv")
        shutil.copytree(EXAMPLES / "embedded-server", host.config, dirs_exist_ok=True)
        main = host.config / "runnerd.yaml"
        main.write_text(main.read_text() + f"run: {{environment: {{PREFECT_HOME: '{host.root}/prefect-home'}}}}\n")
        host.start()
        eventually(lambda: host.json("status")["api"]["state"] == "ok", "the server to answer", 300, log=host.said)
        host.registered("hourly")
        run = host.ended(host.run_now("hourly", directory=str(tmp_path), older_than_days=0))
        assert run["api_state"] == "COMPLETED"
        assert json.dumps(host.json("status")["api"]["url"]).startswith('"http://127.0.0.1:')
    finally:
        host.close()
