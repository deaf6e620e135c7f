"""Registers the same declarations by Prefect's own means and by runnerd, and compares the deployments in the API."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.kits.checkout import ROOT
from tests.kits.daemon import Api, Host, eventually
from tests.kits.prefect_servers import PrefectServer

POOL = "fields"
WAYS = ("deploy", "flow.deploy", "serve")  # prefect deploy, flow.deploy(), flow.serve()
LIMIT_S = 300.0
DECLARATIONS: list[dict[str, Any]] = yaml.safe_load((ROOT / "tests" / "server" / "declarations.yaml").read_text())

FLOWS = '''
from datetime import datetime

from prefect import flow


@flow
def totals(at: datetime = None, x: int = 1, **rest):
    """Of the flow."""


@flow(name="named", version="7", description="By its decorator.")
def versioned(region: str, size: float = 1.5):
    """Not this."""


@flow
def undescribed():
    pass
'''

# What flow.deploy() and flow.serve() do, for declarations on standard input. serve() registers like this, then runs.
BY_CODE = '''
import sys
from datetime import datetime, timedelta

import yaml
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
try:
    from prefect.schedules import Schedule
except ImportError:  # 2.20
    Schedule = None

import flows

def schedule(said):
    said = dict(said)
    if "anchor_date" in said:
        said["anchor_date"] = datetime.fromisoformat(said["anchor_date"])
    if "interval" in said:
        said["interval"] = timedelta(seconds=said["interval"])
    if Schedule is not None:
        return Schedule(**said)
    rest = {key: said.pop(key) for key in ("active",) if key in said}
    kind = CronSchedule if "cron" in said else RRuleSchedule if "rrule" in said else IntervalSchedule
    return {"schedule": kind(**said), **rest}

def limit(said):
    if not isinstance(said, dict):
        return said
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    return ConcurrencyLimitConfig(**said)

for said in yaml.safe_load(sys.stdin):
    way, name = said.pop("way"), said.pop("name")
    flow = getattr(flows, said.pop("entrypoint").partition(":")[2])
    said["schedules"] = [schedule(one) for one in said.get("schedules", ())] or None
    if "concurrency_limit" in said:
        said["concurrency_limit"] = limit(said["concurrency_limit"])
    pool = said.pop("work_pool", {})
    if way == "serve":
        said = {key: value for key, value in said.items() if value is not None}
        flow.to_deployment(name, **said).apply()
        continue
    source = flow.from_source(source=".", entrypoint=f"flows.py:{flow.fn.__name__}")
    extra = {key: pool[key] for key in ("work_queue_name", "job_variables") if key in pool}
    source.deploy(name, work_pool_name=said.pop("pool", POOL), build=False, push=False, print_next_steps=False,
                  **extra, **{key: value for key, value in said.items() if value is not None})
'''  # fmt: skip

NOT_COMPARED = frozenset(
    "id created updated created_by updated_by name flow_id last_polled status work_queue_id schedule deployment_id"
    " is_schedule_active version_id".split()
)


def of_major(major: int, way: str) -> list[dict[str, Any]]:
    """The declarations that this way of this major can express, without what only the test reads."""
    return [
        {key: value for key, value in one.items() if key not in ("only", "ways")}
        for one in DECLARATIONS
        if major in one.get("only", (2, 3)) and way in one.get("ways", WAYS)
    ]


def named(one: Mapping[str, Any], way: str) -> dict[str, Any]:
    return {**one, "name": f"{one['name']}-{way.replace('.', '-')}"}


def pooled(one: Mapping[str, Any]) -> dict[str, Any]:
    return {**one, "work_pool": {"name": POOL, **one.get("work_pool", {})}}


def register_by_prefect(server: PrefectServer, project: Path) -> None:
    """Register all declarations with `prefect deploy`, flow.deploy() and flow.serve() in the directory `project`."""
    (project / "flows.py").write_text(FLOWS)
    deployments = [pooled(named(one, "deploy")) for one in of_major(server.major, "deploy")]
    (project / "prefect.yaml").write_text(yaml.safe_dump({"name": "project", "deployments": deployments}))
    command = [str(Path(server.python).with_name("prefect")), "--no-prompt", "deploy", "--all"]
    run(command, server, project)
    by_code = [{"way": way, **named(one, way)} for way in WAYS[1:] for one in of_major(server.major, way)]
    (project / "by_code.py").write_text(BY_CODE.replace("POOL", repr(POOL)))
    run([server.python, "by_code.py"], server, project, text=yaml.safe_dump(by_code))


def run(command: list[str], server: PrefectServer, project: Path, text: str = "") -> None:
    done = subprocess.run(
        command, env=server.environment, cwd=project, input=text, text=True, capture_output=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


# Prefect registers parameters that the flow lacks, and each run with them fails: runnerd does and says so.
UNKNOWN = "has no parameter"


def register_by_runnerd(host: Host, major: int, project: Path) -> None:
    """Have a daemon register all declarations: in the pool as `X-pool`, as its own as `X-own`."""
    in_pool = {one["name"]: pooled(named(one, "pool")) for way in WAYS[:2] for one in of_major(major, way)}
    own = {one["name"]: named(one, "own") for one in of_major(major, "serve")}
    deployments = [*in_pool.values(), *own.values()]
    for one in deployments:
        one["run"] = {"working_directory": str(project)}
    host.drop_in("fields.yaml", yaml.safe_dump({"deployments": deployments}))
    host.start()

    def registered() -> bool:
        problems = [one for one in host.json("status")["problems"] if UNKNOWN not in one["message"]]
        assert not problems, problems
        listed = host.json("deployments")
        return len(listed) == len(deployments) and all(one["id"] for one in listed)

    eventually(registered, "all declarations registered", LIMIT_S)


def differences(api: Api, major: int) -> dict[tuple[str, str], list[tuple[str, Any, Any]]]:
    """What differs, by field and way: the declaration, Prefect's value and runnerd's."""
    found: dict[tuple[str, str], list[tuple[str, Any, Any]]] = {}
    for way in WAYS:
        for one in of_major(major, way):
            flow = "named" if one["entrypoint"].endswith(":versioned") else one["entrypoint"].partition(":")[2]
            theirs, ours = (
                dict(fields_of(api.deployment(flow, named(one, source)["name"])))
                for source in (way, "own" if way == "serve" else "pool")
            )
            for field in sorted(theirs.keys() | ours.keys()):
                if theirs.get(field) != ours.get(field):
                    found.setdefault((field, way), []).append((one["name"], theirs.get(field), ours.get(field)))
    return found


def fields_of(stored: Any) -> Iterator[tuple[str, Any]]:
    """Each field of a deployment as the API shows it; of its schedules in order, key by key."""
    assert stored is not None
    for key, value in stored.items():
        if key == "schedules":
            rules = [{**one["schedule"], **{k: v for k, v in one.items() if k != "schedule"}} for one in value]
            rules.sort(key=lambda rule: json.dumps([rule.get(k) for k in ("cron", "interval", "rrule")]))
            for name in sorted({name for rule in rules for name in rule} - NOT_COMPARED):
                yield f"schedules.{name}", [rule.get(name) for rule in rules]
        elif key == "global_concurrency_limit":
            yield key, value and value["limit"]
        elif key not in NOT_COMPARED:
            yield key, value
