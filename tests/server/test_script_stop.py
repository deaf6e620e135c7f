"""pause_on_shutdown and limit of a script: what is recorded of them, and that a stop pauses its deployments alone."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kits.daemon import Host, eventually
from tests.kits.prefect_servers import PrefectServer
from tests.kits.read_scripts import read_scripts

pytestmark = pytest.mark.server

HEAD = """
import asyncio
from prefect import flow, serve
from prefect.runner import Runner

@flow
def one(): ...

async def run_it(**options):
    runner = Runner(**options)
    await runner.add_flow(one, name="a")
    await runner.start()

if __name__ == "__main__":
    """
# What the script says of it, and what its entry says: Prefect's own default, True, is not the script's word.
SAID = {
    "serve": ("one.serve('a', pause_on_shutdown=True)", True),
    "serve_not": ("one.serve('a', pause_on_shutdown=False)", False),
    "unsaid": ("one.serve('a')", None),
    "several": ("serve(one.to_deployment('a'), pause_on_shutdown=True)", True),
    "several_unsaid": ("serve(one.to_deployment('a'))", None),
    "runner": ("asyncio.run(run_it(pause_on_shutdown=True))", True),
    "runner_unsaid": ("asyncio.run(run_it())", None),
}
POOLED = "serve(one.to_deployment('a', work_pool_name='p'), pause_on_shutdown=True)"  # 3 serves it without the pool


@pytest.mark.parametrize("major", [2, 3])
def test_only_what_a_script_says_is_recorded(major: int, tmp_path: Path) -> None:
    for name, call in [*((name, call) for name, (call, _) in SAID.items()), ("pooled", POOLED)]:
        (tmp_path / f"{name}.py").write_text(f"{HEAD}{call}\n")
    answers = read_scripts(tmp_path, major, {f"{name}.py": 120.0 for name in (*SAID, "pooled")})
    found = {}
    for name in SAID:
        (one,) = answers[f"{name}.py"]["ok"]["deployments"]
        found[name] = one["entry"].get("pause_on_shutdown")
    assert found == {name: said for name, (_, said) in SAID.items()}
    pooled = answers["pooled.py"]["ok"]
    assert pooled["deployments"][0]["entry"].get("pause_on_shutdown") is (True if major == 3 else None)
    notes = [one["message"] for one in pooled["left_out"]]
    assert notes == ([] if major == 3 else ["pause_on_shutdown=True: a deployment in a work pool is never paused"])


@pytest.mark.parametrize("major", [2, 3])
def test_the_limit_of_several_counts_them_together(major: int, tmp_path: Path) -> None:
    several = "serve(one.to_deployment('a'), one.to_deployment('b'), limit=3)"
    calls = {"several": several, "single": "one.serve('a', limit=2)"}
    for name, call in calls.items():
        (tmp_path / f"{name}.py").write_text(f"{HEAD}{call}\n")
    answers = read_scripts(tmp_path, major, {f"{name}.py": 120.0 for name in calls})
    found = {name: [one["entry"]["run"] for one in answers[f"{name}.py"]["ok"]["deployments"]] for name in calls}
    line = HEAD.count("\n") + 1
    assert found["several"] == [{"limit": 3, "limit_group": f"several.py:{line}"}] * 2
    assert found["single"] == [{"limit": 2}]
    assert answers["several.py"]["ok"]["left_out"] == []


def write_script(host: Host, name: str, options: str) -> str:
    flow = f"from prefect import flow\n\n@flow\ndef {name}(): ...\n\n"
    (host.config / f"{name}.py").write_text(f"{flow}if __name__ == '__main__':\n    {name}.serve('{name}'{options})\n")
    return f"  - {{path: {name}.py}}\n"


def paused(host: Host, *names: str) -> list[bool]:
    return [host.api.deployment(name, name)["paused"] for name in names]


def test_a_stop_pauses_what_its_script_says_and_the_next_start_resumes_it(prefect: PrefectServer) -> None:
    names = ("said", "unsaid", "never")
    host = Host(url=prefect.url, python=prefect.python)
    try:
        options = dict(zip(names, (", pause_on_shutdown=True", "", ", pause_on_shutdown=False"), strict=True))
        host.drop_in("a.yaml", "scripts:\n" + "".join(write_script(host, name, its) for name, its in options.items()))
        host.start()
        host.registered(*names)
        stop(host)
        assert paused(host, *names) == [True, False, False]
        host.write_main((host.config / "runnerd.yaml").read_text() + "stop: {pause_schedules: true}\n")
        host.start()
        eventually(lambda: paused(host, *names) == [False, False, False], "all to be resumed", log=host.said)
        host.registered(*names)
        stop(host)
        assert paused(host, *names) == [True, True, False]
        write_script(host, "said", "")
        host.start()
        eventually(lambda: paused(host, *names) == [False, False, False], "all to be resumed", log=host.said)
    finally:
        host.close()


def stop(host: Host) -> None:
    host.signal(signal.SIGTERM)
    assert host.wait() == 0, host.said()
    host.log.write_bytes(b"")
