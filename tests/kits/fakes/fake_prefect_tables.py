"""The tables of FakePrefect: flows, deployments and flow runs, and what the server allows of them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.kits.fakes.fake_pools import FakePools
from tests.kits.fakes.fake_prefect_rules import (
    ALLOWED_KEYS,
    OCCUPYING,
    Refusal,
    Ruling,
    change_schedule,
    completed_to_pending,
    completed_to_scheduled,
    no_slot,
    schedule_of,
    transition,
)

Json = Any
PAGE = 200


class PrefectTables:
    """What a server holds, and how requests change it; `ahead` is how far its clock runs before the real one."""

    def __init__(self, *, major: int) -> None:
        self.major = major
        self.keeps_results = False  # every Completed run has a result that is persisted
        self.guards_completed: str | None = None  # how servers since 3.9.4 answer a claim of a Completed run
        self.flows: dict[str, dict[str, Json]] = {}
        self.deployments: dict[str, dict[str, Json]] = {}
        self.runs: dict[str, dict[str, Json]] = {}
        self.task_runs: dict[str, str] = {}  # by id: the flow run that each belongs to
        self.leases: set[str] = set()  # 3.x: of the concurrency limits of deployments
        self.renewed: list[str] = []
        self.states: dict[str, list[Json]] = {}  # of each run, the states it went through
        self.pools = FakePools(self)
        self.ahead = timedelta()  # how far its clock runs before the real one

    # --- flows and deployments --------------------------------------------------------------------------------

    def _ensure_flow(self, body: Json) -> tuple[int, Json]:
        self._check_keys("flow", body)
        if set(body["name"]) & set("/%&><"):
            raise Refusal.invalid(["body", "name"], "contains an invalid character")
        for flow in self.flows.values():
            if flow["name"] == body["name"]:
                return 200, flow
        flow = {"id": str(uuid.uuid4()), "name": body["name"], "tags": body.get("tags", [])}
        self.flows[flow["id"]] = flow
        return 201, flow

    def _upsert(self, body: Json) -> tuple[int, Json]:
        self._check_keys("deployment", body)
        if body["flow_id"] not in self.flows:
            raise Refusal(409, {"detail": "Data integrity conflict."})
        same = [
            each
            for each in self.deployments.values()
            if (each["flow_id"], each["name"]) == (body["flow_id"], body["name"])
        ]
        deployment_id = same[0]["id"] if same else str(uuid.uuid4())
        schedules = [schedule_of(each, deployment_id, self.major, keep=False) for each in body.get("schedules", [])]
        stored = {**(same[0] if same else {}), **body, "id": deployment_id, "schedules": schedules}
        if same and body.get("work_pool_name") is None and same[0].get("work_queue_id") is not None:
            stored |= {key: same[0][key] for key in ("work_pool_name", "work_queue_name")}  # only a change clears them
        stored |= self.pools.place(body)
        if self.major == 2:
            stored.pop("job_variables", None)  # told as infra_overrides
        stored.setdefault("paused", False)
        self.deployments[deployment_id] = stored
        self._drop_scheduled(deployment_id)
        return (200 if same else 201), stored

    def _change_deployment(self, deployment_id: str, body: Json) -> tuple[int, Json]:
        """Change the keys of the body; 2.20 cannot change the schema, and an empty map of job variables is none."""
        self._check_keys("deployment change", body)
        stored = self._deployment(deployment_id)
        if body.get("work_pool_name") not in {None, *self.pools.pools}:
            raise Refusal(500, {"exception_message": "Internal Server Error"})
        whole = {**stored, **body}
        if whole.get("enforce_parameter_schema", self.major == 3):
            schema = whole.get("parameter_openapi_schema") or {}
            self._check_parameters({**schema, "required": []}, whole.get("parameters") or {})
        stored |= {key: value for key, value in body.items() if key != "schedules"}
        if self.major == 3 and "work_pool_name" in body:
            stored |= {"work_queue_id": None, **self.pools.place(body)}
        self._drop_scheduled(deployment_id)
        return 204, None

    def _add_schedules(self, deployment_id: str, bodies: Json) -> tuple[int, Json]:
        stored = [schedule_of(each, deployment_id, self.major, keep=True) for each in bodies]
        self._deployment(deployment_id)["schedules"] += stored
        return 201, stored

    def _change_schedule(self, deployment_id: str, schedule_id: str, body: Json) -> tuple[int, Json]:
        """Change a schedule, or delete it where there is no body."""
        schedules = self._deployment(deployment_id)["schedules"]
        (found,) = [each for each in schedules if each["id"] == schedule_id] or [None]
        if found is None:
            raise Refusal(404, {"detail": "Schedule not found."})
        if body is None:
            schedules.remove(found)
        else:
            change_schedule(found, body, self.major)
        self._drop_scheduled(deployment_id)
        return 204, None

    def _named(self, flow_name: str, name: str) -> Json:
        for each in self.deployments.values():
            if each["name"] == name and self.flows[each["flow_id"]]["name"] == flow_name:
                return each
        raise Refusal(404, {"detail": "Deployment not found"})

    def _pause(self, deployment_id: str, paused: bool) -> tuple[int, Json]:
        deployment = self._deployment(deployment_id)
        if self.major == 2:
            if len(deployment["schedules"]) > 1:
                raise Refusal(422, {"detail": ["Error updating deployment: it has multiple schedules."]})
            for schedule in deployment["schedules"]:
                schedule["active"] = not paused
        deployment["paused"] = paused
        if paused:
            self._drop_scheduled(deployment_id)
        return 200, None

    def _delete(self, deployment_id: str) -> tuple[int, Json]:
        self._deployment(deployment_id)
        del self.deployments[deployment_id]
        for run in [each for each in self.runs.values() if each["deployment_id"] == deployment_id]:
            if run["state"]["type"] == "SCHEDULED":
                del self.runs[run["id"]]
        return 204, None

    def _drop_scheduled(self, deployment_id: str) -> None:
        for run in list(self.runs.values()):
            ahead = run["auto_scheduled"] and run["state"]["type"] == "SCHEDULED"
            if ahead and run["deployment_id"] == deployment_id:
                del self.runs[run["id"]]

    # --- flow runs --------------------------------------------------------------------------------------------

    def add_run(self, deployment_id: str, *, due: datetime | None = None, **more: Json) -> str:
        """A run as the server's own scheduler makes it; returns its id."""
        return self._new_run(self.deployments[deployment_id], {"auto_scheduled": True, **more}, due)["id"]

    def child_of(self, parent_id: str, run_id: str) -> str:
        """Make a run one that `run_deployment` in the parent's flow made; returns its id."""
        task_run_id = str(uuid.uuid4())
        self.task_runs[task_run_id] = parent_id
        self.runs[run_id] |= {"parent_task_run_id": task_run_id, "auto_scheduled": False}
        return run_id

    def _scheduled(self, body: Json) -> list[Json]:
        limit = body.get("limit", PAGE)
        if limit > PAGE:
            raise Refusal.invalid(["body", "limit"], f"Invalid limit: must be less than or equal to {PAGE}.")
        before = _moment(body["scheduled_before"])
        due = [
            run
            for run in self.runs.values()
            if run["deployment_id"] in body["deployment_ids"]
            and run["state"]["type"] == "SCHEDULED"
            and _moment(run["next_scheduled_start_time"]) <= before
        ]
        return sorted(due, key=lambda run: _moment(run["next_scheduled_start_time"]))[:limit]

    def _filter_runs(self, body: Json) -> list[Json]:
        chosen = body["flow_runs"]
        types, names = (chosen.get("state", {}).get(key, {}).get("any_") for key in ("type", "name"))
        ids = chosen.get("id", {}).get("any_")
        runs = list(self.runs.values()) if ids is None else [self.runs[each] for each in ids if each in self.runs]
        found = [run for run in self.pools.placed(runs, body) if types is None or run["state"]["type"] in types]
        found = [run for run in found if names is None or run["state"]["name"] in names]
        if before := chosen.get("next_scheduled_start_time", {}).get("before_"):
            found = [run for run in found if _moment(run["next_scheduled_start_time"]) <= _moment(before)]
        if body.get("sort") == "NEXT_SCHEDULED_START_TIME_ASC":
            found.sort(key=lambda run: _moment(run["next_scheduled_start_time"]))
        return found[: body.get("limit", PAGE)]

    def _filter_deployments(self, body: Json) -> list[Json]:
        chosen = body["deployments"]
        ids, paused = chosen.get("id", {}).get("any_"), chosen.get("paused", {}).get("eq_")
        pools = body.get("work_pools", {}).get("name", {}).get("any_")
        every = self.deployments if ids is None else [each for each in ids if each in self.deployments]
        found = [self.deployments[each] for each in every]
        for key, there in (("name", chosen), ("flow_id", {"flow_id": body.get("flows", {}).get("id", {})})):
            if (wanted := there.get(key, {}).get("any_")) is not None:
                found = [each for each in found if each[key] in wanted]
        found = [each for each in found if paused is None or each["paused"] is paused]
        return [each for each in found if pools is None or each.get("work_pool_name") in pools]

    def _create_run(self, deployment_id: str, body: Json) -> tuple[int, Json]:
        self._check_keys("create_run", body)
        deployment = self._deployment(deployment_id)
        key = body.get("idempotency_key")
        for run in self.runs.values():
            if key is not None and (run["flow_id"], run["idempotency_key"]) == (deployment["flow_id"], key):
                return 200, run
        parameters = {**deployment.get("parameters", {}), **body.get("parameters", {})}
        enforced = deployment.get("enforce_parameter_schema", self.major == 3)
        if enforced:
            self._check_parameters(deployment.get("parameter_openapi_schema") or {}, parameters)
        due = ((body.get("state") or {}).get("state_details") or {}).get("scheduled_time")
        return 201, self._new_run(deployment, {**body, "parameters": parameters}, due and _moment(due))

    def _check_parameters(self, schema: Json, parameters: Json) -> None:
        import jsonschema

        errors = list(jsonschema.Draft202012Validator(schema).iter_errors(parameters))
        if errors:
            raise Refusal(409, {"detail": f"Error creating flow run: {errors[0].message}"})

    def _new_run(self, deployment: Json, more: Json, due: datetime | None) -> Json:
        at = _text(due or self._now())
        run = {
            "id": str(uuid.uuid4()),
            "name": more.get("name") or "fast-falcon",
            "flow_id": deployment["flow_id"],
            "deployment_id": deployment["id"],
            "parameters": more.get("parameters", deployment.get("parameters", {})),
            "tags": sorted({*deployment.get("tags", []), *more.get("tags", [])}),
            "idempotency_key": more.get("idempotency_key"),
            "auto_scheduled": more.get("auto_scheduled", False),
            "run_count": 0,
            "empirical_policy": {"retries": None, "retry_delay": None, "retry_type": None},
            "created": _text(self._now()),
            "expected_start_time": at,
            "next_scheduled_start_time": at,
            **self.pools.placing(deployment, more),
        }
        self.runs[run["id"]] = run
        self.states[run["id"]] = []
        self._enter(run, {"type": "SCHEDULED", "name": "Scheduled", "state_details": {"scheduled_time": at}})
        return run

    def _set_state(self, run_id: str, body: Json) -> tuple[int, Json]:
        self._check_keys("set_state", body)
        self._check_keys("state", body["state"])
        if run_id not in self.runs:
            raise Refusal(404, {"exception_message": f"Flow run with id {run_id} not found"})
        run = self.runs[run_id]
        guarded = completed_to_pending(run, body["state"], self.guards_completed)
        if self.keeps_results and not body.get("force"):
            guarded = guarded or completed_to_scheduled(run, body["state"])
        verdict = (
            guarded
            or self._no_slot(run, body)
            or transition(run, body["state"], force=body.get("force", False), major=self.major, now=self._now())
        )
        if verdict.enter is not None:
            self._enter(run, verdict.enter)
        created = verdict.enter is not None
        told = run["state"] if verdict.status != "WAIT" else None
        return (201 if created else 200), {"state": told, "status": verdict.status, "details": verdict.details}

    def _no_slot(self, run: Json, body: Json) -> Ruling | None:
        """3.x counts the runs of a deployment when one becomes pending."""
        deployment = self.deployments.get(run["deployment_id"], {})
        limit = self._limit_of(run)
        if limit is None or body["state"]["type"] != "PENDING" or run["state"]["type"] in OCCUPYING:
            return None
        same = [each for each in self.runs.values() if each["deployment_id"] == run["deployment_id"]]
        if sum(each["state"]["type"] in OCCUPYING for each in same) < limit:
            return None
        return no_slot(deployment["concurrency_options"]["collision_strategy"], now=self._now())

    def _limit_of(self, run: Json) -> int | None:
        return self.deployments.get(run["deployment_id"], {}).get("concurrency_limit")

    def _enter(self, run: Json, state: Json) -> None:
        details = {"transition_id": None, "scheduled_time": None, **(state.get("state_details") or {})}
        kind = state["type"]
        if kind == "PENDING" and self._limit_of(run) is not None and self.major == 3:
            details["deployment_concurrency_lease_id"] = str(uuid.uuid4())
            self.leases.add(details["deployment_concurrency_lease_id"])
        elif kind == "RUNNING" and run.get("state"):
            before = run["state"]["state_details"].get("deployment_concurrency_lease_id")
            details |= {} if before is None else {"deployment_concurrency_lease_id": before}
        run["state"] = {
            "id": str(uuid.uuid4()),
            "type": kind,
            "name": state.get("name") or kind.capitalize(),
            "message": state.get("message"),
            "timestamp": _text(self._now()),
            "state_details": {**details, "flow_run_id": run["id"]},
        }
        run["state_type"], run["state_name"] = kind, run["state"]["name"]
        scheduled = details["scheduled_time"] or _text(self._now())
        run["next_scheduled_start_time"] = scheduled if kind == "SCHEDULED" else None
        run["run_count"] += kind == "RUNNING"
        self.states[run["id"]].append(run["state"])

    # --- small things -----------------------------------------------------------------------------------------

    def _check_keys(self, what: str, body: Json) -> None:
        unknown = set(body) - ALLOWED_KEYS[what][self.major]
        if unknown:
            raise Refusal.extra(["body", *sorted(unknown)])

    def _get(self, table: dict[str, Json], key: str, missing: str) -> Json:
        if key not in table:
            raise Refusal(404, {"detail": missing})
        return table[key]

    def _deployment(self, deployment_id: str) -> Json:
        return self._get(self.deployments, deployment_id, "Deployment not found")

    def _now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
