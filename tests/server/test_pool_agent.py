"""What Prefect 2.20's agent does, by runnerd: pools of its type, queues by name and by prefix, blocks and tags."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.prefect import AGENT_POOL
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import PoolHost, new_pool, pools_of

Json = Any


@pytest.fixture
def host(prefect2: PrefectServer) -> Iterator[tuple[PoolHost, str]]:
    """A host that serves a pool of its own, and queues whose names begin like it in that of queues without a pool."""
    host, name = PoolHost(prefect2), new_pool()
    host.api.call("POST", "/work_queues/", {"name": f"{name}-tagged", "filter": {"tags": [name]}})
    pools = f"""
pools:
  - {{name: {name}, type: prefect-agent}}
  - {{name: {AGENT_POOL}, match: {name}-}}
"""
    with pools_of(host, pools, name):
        host.serves(name)
        host.serves(AGENT_POOL)
        yield host, name
    for queue in (f"{name}-tagged", f"{name}-new"):
        host.api.call("DELETE", f"/work_pools/{AGENT_POOL}/queues/{queue}")


def block(host: PoolHost, slug: str, **data: Json) -> dict[str, str]:
    """What a deployment says that has a new infrastructure block."""
    kind = host.api.call("GET", f"/block_types/slug/{slug}")["id"]
    schema = host.api.call("POST", "/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})[0]
    body = {"name": new_pool(), "block_type_id": kind, "block_schema_id": schema["id"], "data": {"type": slug, **data}}
    return {"infrastructure_document_id": str(host.api.call("POST", "/block_documents/", body)["id"])}


def test_pools_queues_blocks_and_tags_of_prefect2(host: tuple[PoolHost, str]) -> None:
    served, name = host
    assert served.api.call("GET", f"/work_pools/{name}")["type"] == "prefect-agent"
    assert [served.pool(pool)["service"] for pool in (name, AGENT_POOL)] == ["agent", "agent"]
    assert [queue["name"] for queue in served.pool(AGENT_POOL)["queues"]] == [f"{name}-tagged"]

    # As `prefect deployment build` registers it: a path to copy the code from, and an infrastructure block.
    said = Path(f"{served.marks}-said")
    command = ["sh", "-c", f'echo "$FOO $BAR" > {said}; exec "$0" -m prefect.engine', served.python]
    process = block(served, "process", command=command, env={"FOO": "block", "BAR": "block"}, name="of the block")
    code = {"path": str(served.config), "pull_steps": None}
    overrides = {"job_variables": {"env.FOO": "override", "name": "overridden"}}
    built = served.create_run(served.deploy(name, "built", **code, **process, **overrides))

    docker = block(served, "docker-container", image="etl:1")
    refused = served.create_run(served.deploy(name, "docker", **docker))
    tiny = block(served, "process", command=shlex.split(served.tiny()))
    elsewhere = served.deploy(None, "by-tag", **tiny)
    tagged, untagged = served.create_run(elsewhere, tags=[name, "more"]), served.create_run(elsewhere, tags=["more"])
    new = served.create_run(served.deploy(None, "new", work_queue_name=f"{name}-new", **tiny))  # makes the queue

    words = served.ends(refused, "CRASHED")["state"]["message"]
    assert words.startswith("submission failed: deployment greet/docker has the infrastructure block docker-container/")
    assert "Prefect's own agent" in words
    served.ends(tagged, "COMPLETED")
    served.ends(new, "COMPLETED")
    assert sorted(served.marked()) == sorted([tagged, new])
    assert served.api.state(untagged) == "SCHEDULED"
    run = served.ends(built, "COMPLETED")
    assert said.read_text() == "override block\n"
    assert run["infrastructure_pid"].startswith(f"runnerd@{served.name}:")
    assert served.document(built)["process_name"] == "overridden"
