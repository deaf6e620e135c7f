"""What a script registers by Prefect, and what its import registers by runnerd: the same, field by field."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import ANSWER_S, FLOWS_AS_ROOT, Api, Host, eventually
from tests.kits.prefect_servers import PrefectServer
from tests.kits.registered_fields import fields_of, run
from tests.kits.serve_scripts import MORE, REGISTER, SCRIPTS, Script, of_major

pytestmark = [pytest.mark.server, pytest.mark.time_limit(1800.0)]

# As docs/from-prefect.md says of flow.serve(): always so, whatever the script says.
ALWAYS = {"path", "pull_steps"}


def write_scripts(folder: Path, scripts: dict[str, Script]) -> None:
    for name, text in {**MORE, **{f"{name}.py": script.text for name, script in scripts.items()}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def stored(api: Api) -> dict[str, Any]:
    """Deployments of the API by their names, as many as one answer has."""
    return {one["name"]: one for one in api.call("POST", "/deployments/filter", {"limit": 200})}


def take_originals(api: Api) -> dict[str, dict[str, Any]]:
    """Read what is registered, and delete it; after many other tests that is more than an answer has."""
    taken: dict[str, dict[str, Any]] = {}
    while found := stored(api):
        for name, one in found.items():
            taken[name] = dict(fields_of(one))
            api.call("DELETE", f"/deployments/{one['id']}")
    return taken


def imported(folder: Path, name: str, server: PrefectServer) -> dict[str, Any]:
    argv = [sys.executable, "-m", "runnerd.cli", "import", f"{name}.py", "--python", server.python, "--json"]
    done = subprocess.run(
        argv, cwd=folder, env={**server.environment, **FLOWS_AS_ROOT}, capture_output=True, text=True, timeout=ANSWER_S
    )
    assert done.returncode == 0, (name, done.stdout, done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def differences(
    originals: dict[str, dict[str, Any]], ours: dict[str, Any], scripts: dict[str, Script]
) -> Iterator[tuple[str, str, Any, Any]]:
    for name, theirs in originals.items():
        mine = dict(fields_of(ours[name]))
        theirs["entrypoint"] = theirs["entrypoint"].replace("near_flows.near", "near_flows:near")  # the import says so
        script = scripts.get(name.split("-")[0])
        allowed = ALWAYS if script is not None and script.anchored else {*ALWAYS, "schedules.anchor_date"}
        for field in sorted(theirs.keys() | mine.keys()):
            if theirs.get(field) != mine.get(field) and field not in allowed:
                yield name, field, theirs.get(field), mine.get(field)


def registered(host: Host, names: Iterable[str]) -> None:
    def others() -> dict[str, str]:
        states = {one["name"]: one["state"] for one in host.json("deployments")}
        return {name: states.get(name, "absent") for name in names if states.get(name) not in ("ready", "paused")}

    # Two dozen inspections, each the start of an interpreter that imports Prefect.
    what = f"{', '.join(names)} to be registered"
    eventually(lambda: not others(), what, 3 * ANSWER_S, log=lambda: f"{others()}\n{host.said()}")


def test_an_import_registers_what_the_script_does(prefect: PrefectServer, tmp_path: Path) -> None:
    folder, scripts, api = tmp_path / "project", of_major(prefect.major), Api(prefect.url)
    folder.mkdir()
    write_scripts(folder, scripts)
    take_originals(api)
    (tmp_path / "register.py").write_text(REGISTER)
    run([prefect.python, str(tmp_path / "register.py"), *(f"{name}.py" for name in scripts)], prefect, folder)
    originals = take_originals(api)
    assert len(originals) >= len(scripts) >= 20
    host = Host(url=prefect.url, python=prefect.python)
    try:
        with ThreadPoolExecutor(2) as pool:
            documents = dict(zip(scripts, pool.map(lambda name: imported(folder, name, prefect), scripts), strict=True))
        for name, document in documents.items():
            host.drop_in(f"{name}.yaml", document["drop_in"])
        host.start()
        registered(host, originals)
        assert list(differences(originals, stored(api), scripts)) == []
    finally:
        host.close()


def test_the_scripts_of_a_drop_in_register_what_they_do(prefect: PrefectServer, tmp_path: Path) -> None:
    """The same through `scripts:`; one of them, of several deployments, is enough beside the comparison above."""
    folder, api = tmp_path / "project", Api(prefect.url)
    folder.mkdir()
    scripts = {name: SCRIPTS[name] for name in ("several", "named")}
    write_scripts(folder, scripts)
    take_originals(api)
    (tmp_path / "register.py").write_text(REGISTER)
    run([prefect.python, str(tmp_path / "register.py"), *(f"{name}.py" for name in scripts)], prefect, folder)
    originals = take_originals(api)
    host = Host(url=prefect.url, python=prefect.python)
    try:
        listed = ", ".join(f"{{path: {name}.py, run: {{working_directory: {folder}}}}}" for name in scripts)
        host.drop_in("scripts.yaml", f"scripts: [{listed}]\n")
        host.start()
        registered(host, originals)
        assert list(differences(originals, stored(api), scripts)) == []
        places = {one["name"]: (one["file"], one["line"]) for one in host.json("config", "show")["deployments"]}
        text = scripts["several"].text.splitlines()
        line = next(number for number, its in enumerate(text, 1) if "several-2" in its)
        assert places["several-2"] == (str(folder / "several.py"), line)
        left_alone = scripts["several"].text.replace("serve(one, two,", "serve(one,")
        (folder / "several.py").write_text(left_alone)
        eventually(lambda: api.deployment("second", "several-2")["paused"], "several-2 to be paused", log=host.said)
        assert not api.deployment("first", "several-1")["paused"]
    finally:
        host.close()
