"""The tables of FakePools: pools, their queues and their workers, and what the server allows of them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from runnerd.core.prefect import AGENT, AGENT_POOL
from tests.kits.fakes.fake_prefect_rules import POOL_KEYS, Refusal

if TYPE_CHECKING:
    from tests.kits.fakes.fake_prefect_tables import PrefectTables

Json = Any
PAGE = 200
SLOTS = {"PENDING", "RUNNING"}  # of a pool and of a queue
AGENT_SLOTS = SLOTS | {"CANCELLING"}  # of a queue that is polled by its id
SEEN_FOR = timedelta(seconds=60)  # a queue that was polled is READY so long
RESERVED = "Work pools starting with 'Prefect' are reserved for internal use."


class PoolTables:
    """What a server holds of work pools, and how requests change it."""

    def __init__(self, fake: PrefectTables) -> None:
        self._fake = fake
        self.pools: dict[str, dict[str, Json]] = {}
        self.by_id: dict[str, dict[str, Json]] = {}
        self.beats: dict[tuple[str, str], dict[str, Json]] = {}  # by the pool's id and the worker's name
        self.blocks: dict[str, dict[str, Json]] = {}
        self.events: list[Json] = []  # emitted by clients
        self.variables: dict[str, dict[str, Json]] = {}
        self.worker_types: dict[str, dict[str, Json]] = {}

    # --- pools ------------------------------------------------------------------------------------------------

    def _create_pool(self, body: Json) -> Json:
        self._check("pool", body)
        if body["name"].lower().startswith("prefect"):
            raise Refusal(403, {"detail": RESERVED})
        self._check_template(body.get("base_job_template") or {})
        if body["name"] in self.pools:
            raise Refusal(409, {"detail": "A work pool with this name already exists."})
        plain = {"description": None, "is_paused": False, "concurrency_limit": None, "base_job_template": {}}
        now = text_of(self._now())
        pool = {"id": str(uuid.uuid4()), "created": now, "updated": now, **plain, "type": AGENT, **body}
        self.pools[pool["name"]] = pool
        pool["default_queue_id"] = self._create_queue(pool, {"name": "default"})["id"]
        return self._told_pool(pool)

    def _told_pool(self, pool: Json) -> Json:
        online = any(worker["status"] == "ONLINE" for worker in self._workers_of(pool))
        status = "PAUSED" if pool["is_paused"] else "READY" if online else "NOT_READY"
        return {**pool, "status": None if pool["type"] == AGENT else status}

    def _update_pool(self, name: str, body: Json) -> tuple[int, Json]:
        self._check("pool change", body)
        if name.lower().startswith("prefect") and set(body) - {"is_paused", "concurrency_limit"}:
            raise Refusal(403, {"detail": RESERVED})
        self._check_template(body.get("base_job_template") or {})
        self._pool(name).update({**body, "updated": text_of(self._now())})
        return 204, None

    def _delete_pool(self, name: str) -> tuple[int, Json]:
        if name.lower().startswith("prefect"):
            raise Refusal(403, {"detail": RESERVED})
        pool = self._pool(name)
        for queue in self._queues_of(pool):
            self._drop_queue(queue)
        self.beats = {key: worker for key, worker in self.beats.items() if key[0] != pool["id"]}
        del self.pools[name]
        return 204, None

    def _pool(self, name: str) -> Json:
        if name not in self.pools:
            raise Refusal(404, {"detail": f'Work pool "{name}" not found.'})
        return self.pools[name]

    def _agent_pool(self) -> Json:
        if AGENT_POOL not in self.pools:
            self._create_pool({"name": AGENT_POOL, "type": AGENT})
        return self.pools[AGENT_POOL]

    def _holder(self, queue: Json) -> Json:
        return next(pool for pool in self.pools.values() if pool["id"] == queue["work_pool_id"])

    # --- queues -----------------------------------------------------------------------------------------------

    def _create_queue(self, pool: Json, body: Json) -> Json:
        self._check("queue", body)
        taken = self._queues_of(pool)
        if any(queue["name"] == body["name"] for queue in taken):
            words = "A work queue with this name already exists in work pool {work_pool_name!r}."
            raise Refusal(409, {"detail": words})
        priorities = {queue["priority"] for queue in taken}
        free = next(number for number in range(1, len(taken) + 2) if number not in priorities)
        plain = {"description": "", "is_paused": False, "concurrency_limit": None, "filter": None, "last_polled": None}
        queue = {"id": str(uuid.uuid4()), **plain, **body, "work_pool_id": pool["id"], "priority": free}
        self.by_id[queue["id"]] = queue
        if body.get("priority") is not None:
            self._move(queue, body["priority"])
        return queue

    def _create_agent_queue(self, body: Json) -> Json:
        return self._told_queue(self._create_queue(self._agent_pool(), body))

    def _ensured(self, pool: Json, name: str) -> Json:
        named = [queue for queue in self._queues_of(pool) if queue["name"] == name]
        return named[0] if named else self._create_queue(pool, {"name": name})

    def _move(self, queue: Json, priority: int) -> None:
        """Give it this priority, and those in its way the next ones."""
        queue["priority"] = priority
        others = [each for each in self._queues_of(self._holder(queue)) if each is not queue]
        last = 0
        for each in sorted([queue, *others], key=lambda each: (each["priority"], each is not queue)):
            last = each["priority"] = max(each["priority"], last + 1)

    def _told_queue(self, queue: Json) -> Json:
        polled = queue["last_polled"]
        seen = polled is not None and self._now() - moment_of(polled) < SEEN_FOR
        status = "PAUSED" if queue["is_paused"] else "READY" if seen else "NOT_READY"
        return {**queue, "work_pool_name": self._holder(queue)["name"], "status": status}

    def _filter_queues(self, pool: str, body: Json) -> list[Json]:
        prefixes = body.get("work_queues", {}).get("name", {}).get("startswith_")
        told = [self._told_queue(queue) for queue in self._queues_of(self._pool(pool))]
        if prefixes is None:
            return told
        return [queue for queue in told if queue["name"].lower().startswith(tuple(each.lower() for each in prefixes))]

    def _update_queue(self, queue: Json, body: Json) -> tuple[int, Json]:
        self._check("queue change", body)
        same = [each for each in self._queues_of(self._holder(queue)) if each["name"] == body.get("name")]
        if same and same[0] is not queue:
            raise Refusal(409, {"detail": "Data integrity conflict."})
        queue.update({key: value for key, value in body.items() if key != "priority"})
        if body.get("priority") is not None:
            self._move(queue, body["priority"])
        return 204, None

    def _delete_queue(self, queue: Json) -> tuple[int, Json]:
        if self._holder(queue)["default_queue_id"] == queue["id"]:
            raise Refusal(500, {"exception_message": "Internal Server Error"})  # the real ones, both of them
        self._drop_queue(queue)
        return 204, None

    def _drop_queue(self, queue: Json) -> None:
        """Without it, and its deployments and runs in no pool; the queue's name stays with them."""
        del self.by_id[queue["id"]]
        for table in (self._fake.deployments, self._fake.runs):
            for each in table.values():
                if each.get("work_queue_id") == queue["id"]:
                    each |= {"work_queue_id": None, "work_pool_name": None}

    def _queue(self, pool: str, name: str) -> Json:
        for queue in self._queues_of(self.pools[pool]) if pool in self.pools else ():
            if queue["name"] == name:
                return queue
        raise Refusal(404, {"detail": f"Work pool queue '{pool}/{name}' not found."})

    def _queues_of(self, pool: Json) -> list[Json]:
        held = [queue for queue in self.by_id.values() if queue["work_pool_id"] == pool["id"]]
        return sorted(held, key=lambda queue: queue["priority"])

    # --- workers ----------------------------------------------------------------------------------------------

    def _heartbeat(self, pool_name: str, body: Json) -> tuple[int, Json]:
        pool, every = self._pool(pool_name), body["heartbeat_interval_seconds"]
        if self._fake.major == 3 and int(every) != every:
            raise Refusal.invalid(["body", "heartbeat_interval_seconds"], "Input should be a valid integer")
        beat = {"name": body["name"], "last_heartbeat_time": text_of(self._now())}
        self.beats[pool["id"], body["name"]] = {**beat, "heartbeat_interval_seconds": int(every)}
        return 204, None

    def _workers_of(self, pool: Json) -> list[Json]:
        found = []
        for (pool_id, _), beat in self.beats.items():
            age = self._now() - moment_of(beat["last_heartbeat_time"])
            late = age > 3 * timedelta(seconds=beat["heartbeat_interval_seconds"] or 30)
            if pool_id == pool["id"]:
                found.append({**beat, "status": "OFFLINE" if late else "ONLINE"})
        return sorted(found, key=lambda worker: str(worker["last_heartbeat_time"]), reverse=True)

    # --- small things -----------------------------------------------------------------------------------------

    def _check(self, what: str, body: Json) -> None:
        unknown = set(body) - POOL_KEYS[what][self._fake.major]
        if unknown:
            raise Refusal.extra(["body", *sorted(unknown)])
        if set(body.get("name") or "") & set("/%&><"):
            raise Refusal.invalid(["body", "name"], "contains an invalid character")
        if (body.get("concurrency_limit") or 0) < 0:
            raise Refusal.invalid(["body", "concurrency_limit"], "Input should be greater than or equal to 0")
        if body.get("priority") is not None and body["priority"] < 1:
            raise Refusal.invalid(["body", "priority"], "Input should be greater than 0")

    def _check_template(self, template: Json) -> None:
        if template and not {"job_configuration", "variables"} <= set(template):
            words = "The `base_job_template` must contain both a `job_configuration` key and a `variables` key."
            raise Refusal.invalid(["body", "base_job_template"], words)

    def _now(self) -> datetime:
        return self._fake._now()


def limit_of(body: Json) -> int:
    limit: int = body.get("limit", PAGE)
    if limit > PAGE:
        raise Refusal(422, {"detail": f"Invalid limit: must be less than or equal to {PAGE}."})
    return limit


def page_of(found: list[Json], body: Json) -> list[Json]:
    start = (body or {}).get("offset", 0)
    return found[start : start + limit_of(body or {})]


def moment_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def text_of(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
