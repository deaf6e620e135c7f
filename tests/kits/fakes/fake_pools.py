"""The work pools of FakePrefect: queues, workers, the runs they offer, and the blocks and variables these need.

tests/server/test_contract_pools.py holds it to what the real servers do. Two things happen at once here that happen
there some seconds later: a worker is OFFLINE as soon as three of its intervals have passed, and a polled queue READY.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from runnerd.core.prefect import WorkerSeen, WorkPool, WorkQueue
from runnerd.prefect_api.parse_pools import parse_pool, parse_queue, parse_worker
from tests.kits.fakes.fake_pool_tables import PAGE, PoolTables, limit_of, moment_of, page_of, text_of
from tests.kits.fakes.fake_prefect_rules import Refusal

Json = Any
SLOTS = {"PENDING", "RUNNING"}  # of a pool and of a queue
AGENT_SLOTS = SLOTS | {"CANCELLING"}  # of a queue that is polled by its id
SEEN_FOR = timedelta(seconds=60)  # a queue that was polled is READY so long
RESERVED = "Work pools starting with 'Prefect' are reserved for internal use."


class FakePools(PoolTables):
    """What of one FakePrefect is about work pools, at `fake.pools`.

    For tests, at once and without a request:

    * `create_pool`, `read_pool`, `update_pool`, `delete_pool`, `create_queue`, `read_queue`, `queues`, `update_queue`,
      `delete_queue`, `heartbeat` and `workers` are what they are in PoolsApi, with the same nouns for answers; but
      those that create take keys of the request's body, and what the server refuses, a 404 too, is raised as a Refusal.
    * `add_deployment(pool, queue=..., **body)` registers a deployment as somebody else would, and returns its id;
      `add_run(deployment_id, due=..., job_variables=...)` creates a run of it, and returns its id.
    * `add_tag_queue(name, tags=...)` makes a legacy queue of 2.x in `default-agent-pool`.
    * `add_block(type_slug, name, data)` returns the block's id; `set_variable(name, value)`;
      `add_worker_type(type, package, template)`.
    * `offered(pool)` are the ids of the runs that the pool would offer to whoever polls it now.
    * The tables are `pools` (by name), `by_id` (queues), `blocks` (by id), `variables`, `worker_types` (by package).
    """

    # --- for tests --------------------------------------------------------------------------------------------

    def create_pool(self, name: str, *, type: str = "process", **more: Json) -> WorkPool:
        return parse_pool(self._create_pool({"name": name, "type": type, **more}))

    def read_pool(self, name: str) -> WorkPool:
        return parse_pool(self._told_pool(self._pool(name)))

    def update_pool(self, name: str, changes: Mapping[str, Json]) -> None:
        self._update_pool(name, dict(changes))

    def delete_pool(self, name: str) -> None:
        self._delete_pool(name)

    def create_queue(self, pool: str, name: str, **more: Json) -> WorkQueue:
        return parse_queue(self._told_queue(self._create_queue(self._pool(pool), {"name": name, **more})))

    def read_queue(self, pool: str, name: str) -> WorkQueue:
        return parse_queue(self._told_queue(self._queue(pool, name)))

    def queues(self, pool: str) -> list[WorkQueue]:
        return [parse_queue(self._told_queue(queue)) for queue in self._queues_of(self._pool(pool))]

    def update_queue(self, pool: str, name: str, changes: Mapping[str, Json]) -> None:
        self._update_queue(self._queue(pool, name), dict(changes))

    def delete_queue(self, pool: str, name: str) -> None:
        self._delete_queue(self._queue(pool, name))

    def heartbeat(self, pool: str, *, worker: str, interval_s: int) -> None:
        self._heartbeat(pool, {"name": worker, "heartbeat_interval_seconds": interval_s})

    def workers(self, pool: str) -> list[WorkerSeen]:
        return [parse_worker(worker) for worker in self._workers_of(self._pool(pool))]

    def add_deployment(
        self, pool: str | None, *, queue: str | None = None, flow: str = "pooled", name: str | None = None, **more: Json
    ) -> str:
        """Register a deployment in this pool, in its default queue if none is named; `more` are keys of its body."""
        flow_id = self._fake._ensure_flow({"name": flow})[1]["id"]
        body = {"name": name or f"d-{uuid.uuid4().hex[:8]}", "flow_id": flow_id, **more}
        return str(self._fake._upsert({**body, "work_pool_name": pool, "work_queue_name": queue})[1]["id"])

    def add_run(self, deployment_id: str, *, due: datetime | None = None, **more: Json) -> str:
        """A run of it, as the server's own scheduler makes it: `job_variables`, `parameters`, `name`, `tags`."""
        return self._fake.add_run(deployment_id, due=due, **more)

    def add_tag_queue(
        self, name: str, *, tags: Sequence[str] = (), deployment_ids: Sequence[str] | None = None, **more: Json
    ) -> WorkQueue:
        chosen = {"tags": list(tags), "deployment_ids": deployment_ids and list(deployment_ids)}
        return parse_queue(self._create_agent_queue({"name": name, "filter": chosen, **more}))

    def add_block(self, type_slug: str, name: str | None, data: Mapping[str, Json]) -> str:
        block_id = str(uuid.uuid4())
        block = {"id": block_id, "name": name, "data": dict(data), "is_anonymous": name is None}
        self.blocks[block_id] = {**block, "block_type": {"id": str(uuid.uuid4()), "slug": type_slug}}
        return block_id

    def set_variable(self, name: str, value: Json) -> None:
        self.variables[name] = {"id": str(uuid.uuid4()), "name": name, "value": value, "tags": []}

    def add_worker_type(self, type: str, package: str, template: Mapping[str, Json]) -> None:
        told = {"type": type, "description": f"Runs on {type}.", "default_base_job_configuration": dict(template)}
        self.worker_types.setdefault(package, {})[type] = told

    def offered(self, pool: str) -> list[str]:
        return [each["flow_run"]["id"] for each in self._offer(pool, {"scheduled_before": text_of(self._now())})]

    # --- for FakePrefect --------------------------------------------------------------------------------------

    def route(self, method: str, parts: list[str], body: Json) -> tuple[int, Json] | None:
        """The answer to a request of ours, None when it is not."""
        match (method, *parts):
            case ("POST", "work_pools"):
                return 201, self._create_pool(body)
            case ("POST", "work_pools", "filter"):
                return 200, page_of([self._told_pool(self.pools[name]) for name in sorted(self.pools)], body)
            case (_, "work_pools", name, *rest):
                return self._route_pool(method, name, rest, body or {})
            case ("POST", "work_queues"):
                return 201, self._create_agent_queue(body)
            case ("POST", "work_queues", queue_id, "get_runs"):
                return 200, self._runs_of_queue(queue_id, body)
            case ("POST", "events") if self._fake.major >= 3:
                self.events += body
                return 204, None
            case ("PATCH", "flow_runs", run_id, *rest):
                return self._patch_run(run_id, rest, body or {})
        return self._route_reading(method, parts, body)

    def _route_pool(self, method: str, name: str, rest: list[str], body: Json) -> tuple[int, Json] | None:
        match (method, *rest):
            case ("GET",):
                return 200, self._told_pool(self._pool(name))
            case ("PATCH",):
                return self._update_pool(name, body)
            case ("DELETE",):
                return self._delete_pool(name)
            case ("POST", "get_scheduled_flow_runs"):
                return 200, self._offer(name, body)
            case ("POST", "workers", "heartbeat"):
                return self._heartbeat(name, body)
            case ("POST", "workers", "filter"):
                return 200, page_of(self._workers_of(self._pool(name)), body)
            case ("POST", "queues"):
                return 201, self._told_queue(self._create_queue(self._pool(name), body))
            case ("POST", "queues", "filter"):
                return 200, page_of(self._filter_queues(name, body), body)
            case ("GET", "queues", queue):
                return 200, self._told_queue(self._queue(name, queue))
            case ("PATCH", "queues", queue):
                return self._update_queue(self._queue(name, queue), body)
            case ("DELETE", "queues", queue):
                return self._delete_queue(self._queue(name, queue))
        return None

    def _route_reading(self, method: str, parts: list[str], body: Json) -> tuple[int, Json] | None:
        secrets = (body or {}).get("include_secrets") == "true"
        match (method, *parts):
            case ("GET", "block_documents", block_id):
                return 200, _block(self.blocks.get(block_id), secrets)
            case ("GET", "block_types", "slug", slug, "block_documents", "name", name):
                named = (b for b in self.blocks.values() if (b["block_type"]["slug"], b["name"]) == (slug, name))
                return 200, _block(next(named, None), secrets)
            case ("GET", "variables", "name", name):
                if name not in self.variables:
                    raise Refusal(404, {"detail": "Variable not found."})
                return 200, self.variables[name]
            case ("GET", "collections", "views", "aggregate-worker-metadata"):
                return 200, self.worker_types
        return None

    def place(self, body: Json) -> Json:
        """Where a deployment with this body goes, as the server stores it; its queue is created if missing."""
        pool, queue = body.get("work_pool_name"), body.get("work_queue_name")
        block_id = body.get("infrastructure_document_id")
        if block_id is not None and block_id not in self.blocks:
            raise Refusal(
                409, {"detail": f"Error creating deployment. Could not find infrastructure block {block_id}."}
            )
        placed: Json = {}
        if self._fake.major == 2 and ("job_variables" in body or "infra_overrides" in body):
            placed["infra_overrides"] = {**(body.get("infra_overrides") or {}), **(body.get("job_variables") or {})}
        if pool is not None:
            found = self._pool(pool)
            chosen = self._ensured(found, queue) if queue else self.by_id[found["default_queue_id"]]
        elif queue is not None:
            chosen = self._ensured(self._agent_pool(), queue)
        else:
            return placed
        placed |= {"work_queue_id": chosen["id"], "work_queue_name": chosen["name"]}
        return {**placed, "work_pool_name": self._holder(chosen)["name"]}

    def placing(self, deployment: Json, more: Json) -> Json:
        """The keys of a run that come from its deployment's place, and its own."""
        queue = self.by_id.get(deployment.get("work_queue_id"))
        if queue is not None and more.get("work_queue_name"):
            queue = self._ensured(self._holder(queue), more["work_queue_name"])
        return {
            "work_queue_id": queue and queue["id"],
            "work_queue_name": queue and queue["name"],
            "work_pool_name": queue and self._holder(queue)["name"],
            "job_variables": more.get("job_variables"),
            "infrastructure_pid": None,
        }

    # --- runs -------------------------------------------------------------------------------------------------

    def _offer(self, pool_name: str, body: Json) -> list[Json]:
        limit, pool = limit_of(body), self._pool(pool_name)
        names = body.get("work_queue_names") or []
        chosen = [self._queue(pool_name, name) for name in names] or self._queues_of(pool)
        for queue in chosen:
            queue["last_polled"] = text_of(self._now())
        found: list[Json] = []
        if not pool["is_paused"]:
            for queue in sorted(chosen, key=lambda queue: queue["priority"]):
                due = [] if queue["is_paused"] else self._due(self._runs_in(queue), body)
                found += due[: _free(queue, self._runs_in(queue), SLOTS)]
        everybody = [run for queue in self._queues_of(pool) for run in self._runs_in(queue)]
        found = found[: _free(pool, everybody, SLOTS)][:limit]
        where = [{"work_pool_id": pool["id"], "work_queue_id": run["work_queue_id"]} for run in found]
        return [{**at, "flow_run": {**run, "state": None}} for at, run in zip(where, found, strict=True)]

    def _runs_of_queue(self, queue_id: str, body: Json) -> list[Json]:
        if queue_id not in self.by_id:
            raise Refusal(404, {"exception_message": f"Work queue with id {queue_id} not found."})
        queue, limit = self.by_id[queue_id], limit_of(body)
        queue["last_polled"] = text_of(self._now())
        runs = list(self._runs_in(queue) if queue["filter"] is None else self._picked(queue["filter"]))
        slots = AGENT_SLOTS if queue["filter"] is None else SLOTS
        return [] if queue["is_paused"] else self._due(runs, body)[: _free(queue, runs, slots)][:limit]

    def _picked(self, chosen: Json) -> Iterator[Json]:
        tags, ids = set(chosen.get("tags") or ()), chosen.get("deployment_ids")
        for run in self._fake.runs.values():
            if tags <= set(run["tags"]) and (ids is None or run["deployment_id"] in ids):
                yield run

    def placed(self, runs: list[Json], body: Json) -> list[Json]:
        """Those of these runs that a filter of runs finds by their tags and deployments, or by their place."""
        chosen = body["flow_runs"]
        tags, ids = chosen.get("tags", {}).get("all_"), chosen.get("deployment_id", {}).get("any_")
        picked = list(self._picked({"tags": tags, "deployment_ids": ids}))
        runs = [run for run in runs if run in picked]
        queues = body.get("work_pool_queues", {}).get("id", {}).get("any_")
        pools = body.get("work_pools", {}).get("name", {}).get("any_")
        runs = [run for run in runs if queues is None or run.get("work_queue_id") in queues]
        return [run for run in runs if pools is None or run.get("work_pool_name") in pools]

    def _runs_in(self, queue: Json) -> list[Json]:
        return [run for run in self._fake.runs.values() if run.get("work_queue_id") == queue["id"]]

    def _due(self, runs: list[Json], body: Json) -> list[Json]:
        before, after = body.get("scheduled_before"), body.get("scheduled_after")
        waiting = [run for run in runs if run["state"]["type"] == "SCHEDULED"]
        times = {run["id"]: moment_of(run["next_scheduled_start_time"]) for run in waiting}
        due = [
            run
            for run in waiting
            if (before is None or times[run["id"]] <= moment_of(before))
            and (after is None or times[run["id"]] >= moment_of(after))
        ]
        return sorted(due, key=lambda run: times[run["id"]])

    def _patch_run(self, run_id: str, rest: list[str], body: Json) -> tuple[int, Json] | None:
        if rest not in ([], ["labels"]) or (rest and self._fake.major == 2):
            return None
        if run_id not in self._fake.runs:
            raise Refusal(404, {"exception_message": f"Flow run with id {run_id} not found"})
        run = self._fake.runs[run_id]
        if rest:
            run["labels"] = {**run.get("labels", {}), **body}
        else:
            self._check("run change", body)
            run |= body
        return 204, None


def _free(limited: Json, runs: list[Json], slots: set[str]) -> int:
    limit = limited["concurrency_limit"]
    if limit is None:
        return PAGE
    return max(0, limit - sum(run["state"]["type"] in slots for run in runs))


def _block(block: Json, secrets: bool) -> Json:
    if block is None:
        raise Refusal(404, {"detail": "Block document not found"})
    return block if secrets else {**block, "data": dict.fromkeys(block["data"], "********")}
