"""The web server of http.listen answers as that of Prefect's Runner does, on both majors; and stops the daemon."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import Api, Host, eventually
from tests.kits.prefect_servers import PrefectServer

pytestmark = pytest.mark.server
TOKEN = "0123456789abcdef" * 2
FLOW = '''
from prefect import flow

@flow
def work(x: int = 0, seconds: float = 0):
    """Sleep."""
    import time
    time.sleep(seconds)
'''
SERVE = """
from prefect import serve
import flows

if __name__ == "__main__":
    deployment = flows.work.to_deployment("theirs", enforce_parameter_schema=True)
    serve(deployment, webserver=True) if "webserver" in serve.__annotations__ else flows.work.serve(
        "theirs", enforce_parameter_schema=True, webserver=True)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, method: str, path: str, body: bytes | None = None, *, token: str | None = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        text = error.read()
        return error.code, json.loads(text) if text.startswith(b"{") else text.decode()


def answered(port: int, method: str, path: str, body: bytes | None = None, *, token: str | None) -> tuple[int, Any]:
    """Ask until the server behind it is not too busy to answer."""

    def look() -> tuple[int, Any] | None:
        status, document = ask(port, method, path, body, token=token)
        return None if status == 503 else (status, document)

    return eventually(look, f"an answer to {method} {path}")


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def a_runner(server: PrefectServer, project: Path) -> Iterator[int]:
    """Prefect's own Runner with its web server; the port."""
    port = free_port()
    (project / "serving.py").write_text(SERVE)
    environment = {
        **server.environment,
        "PREFECT_RUNNER_SERVER_PORT": str(port),
        "PREFECT_RUNNER_SERVER_HOST": "127.0.0.1",
        "PREFECT_EXPERIMENTAL_ENABLE_EXTRA_RUNNER_ENDPOINTS": "true",
        "PREFECT_CLIENT_MAX_RETRIES": "30",  # SQLite is busy now and then
    }
    with open(project / "serving.log", "wb") as log:
        process = subprocess.Popen(
            [server.python, "serving.py"], cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        eventually(lambda: listens(port), "Prefect's web server", log=(project / "serving.log").read_text)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(api: Api, port: int, name: str, *, token: str | None, major: int) -> dict[str, Any]:
    """What a web server answers; ids and the words of errors left out."""
    deployment_id = api.deployment("work", name)["id"]
    path = f"/deployment/{deployment_id}/run"
    found = {"health": ask(port, "GET", "/health"), "count": ask(port, "GET", "/run_count")}
    found["nothing"] = ask(port, "POST", f"/deployment/{uuid.uuid4()}/run", b"{}", token=token)
    if major == 2:  # Prefect 3 has no such path
        made = answered(port, "POST", path, b'{"x": 3}', token=token)
        eventually(lambda: api.state(made[1]["flow_run_id"]) == "COMPLETED", "the run to complete")
        assert api.run(made[1]["flow_run_id"])["parameters"]["x"] == 3
        found["run"] = made
        found["no body"] = answered(port, "POST", path, token=token)
        found["wrong"] = answered(port, "POST", path, b'{"x": "many"}', token=token)
        found["no object"] = answered(port, "POST", path, b"[1]", token=token)
    return {what: shape(*one) for what, one in found.items()}


def shape(status: int, document: Any) -> Any:
    if isinstance(document, dict) and "detail" in document:
        return status, "detail"
    if isinstance(document, dict) and "flow_run_id" in document:
        return status, sorted(document)
    return status, document


def test_the_answers_are_those_of_prefects_runner(prefect: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "flows.py").write_text(FLOW)
    api, port = Api(prefect.url), free_port()
    with a_runner(prefect, tmp_path) as theirs:
        expected = answers(api, theirs, "theirs", token=None, major=prefect.major)
        stopped = ask(theirs, "POST", "/shutdown")
    host = Host(url=prefect.url, python=prefect.python)
    try:
        (host.root / "token").write_text(TOKEN)
        main = (host.config / "runnerd.yaml").read_text()
        host.write_main(f"{main}http: {{listen: '127.0.0.1:{port}', token_file: '{host.root}/token'}}\n")
        run = f"{{working_directory: '{tmp_path}'}}"
        host.drop_in("a.yaml", f"deployments: [{{name: ours, entrypoint: 'flows.py:work', run: {run}}}]\n")
        host.start()
        host.registered("ours")
        eventually(lambda: listens(port), "the web server", log=host.said)
        assert answers(api, port, "ours", token=TOKEN, major=prefect.major) == expected

        deployment_id = api.deployment("work", "ours")["id"]
        status, made = answered(port, "POST", f"/deployment/{deployment_id}/run", b'{"seconds": 600}', token=TOKEN)
        assert status == 201
        host.running(made["flow_run_id"])
        # The run that the comparison has made may take a moment to end.
        eventually(lambda: ask(port, "GET", "/run_count") == (200, 1), "this run alone to be counted", log=host.said)
        assert ask(port, "POST", "/shutdown")[0] == 401
        host.ctl("cancel", "--all", "--now")
        host.ended(made["flow_run_id"])
        assert ask(port, "POST", "/shutdown", token=TOKEN) == (200, {"message": "OK"})
        assert stopped == (200, {"message": "OK"}) or stopped[0] == 500, "what 3.9.1 answers of its own"
        assert host.wait() == 0, host.said()
    finally:
        host.close()
