"""Writes the deployments that a script serves as entries of a drop-in's `deployments:`; for record_script.py.

The text of this file is passed to the script's own interpreter together with record_script.py's (Python 3.9+).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from runnerd.programs.script_text import Refusal, words_of

GIT_KEYS = {"_branch": "branch", "_commit_sha": "commit", "_include_submodules": "include_submodules",
            "_directories": "directories"}  # fmt: skip
# What Runner() is given and no deployment has: where it belongs.
OF_THE_HOST = {
    "query_seconds": "api.poll_interval of runnerd.yaml",
    "prefetch_seconds": "api.prefetch of runnerd.yaml",
    "webserver": "http.listen of runnerd.yaml",
}


class Made:
    """How a deployment was made: by which line, of which flow, and with which texts of its own."""

    def __init__(self, deployment: Any, flow: Any, line: int | None) -> None:
        self.deployment = deployment  # held, so that no other object gets its id
        self.flow = flow
        self.line = line
        self.description = deployment.description
        self.version = deployment.version


class Start:
    """One call of Runner.start."""

    def __init__(self, runner: Any, arguments: dict[str, Any], lines: list[int], modules: dict[str, int]) -> None:
        self.runner = runner
        self.arguments = arguments
        self.lines = lines  # of the script, the calling one last
        self.modules = modules  # files whose import is under way, with the line that they are at


class Writer:
    """Writes deployments as entries of `deployments:`; `left_out` is what no entry can say."""

    def __init__(self, script: str, *, made: dict[int, Made], began_s: float, together: Callable[[Any], int]) -> None:
        """`made` is by the ids of the deployments; `together`: count the deployments of a Runner."""
        self.script = script
        self.made = made
        self.began_s = began_s
        self.together = together
        self.line: int | None = None
        self.left_out: list[dict[str, Any]] = []

    def write(self, start: Start, deployment: Any, line: int | None) -> dict[str, Any]:
        made = self.made.get(id(deployment))
        line = (made.line if made is not None else None) or line or next(iter(start.lines), None)
        self.line = line
        entry: dict[str, Any] = {"name": deployment.name, "entrypoint": self.entrypoint(deployment)}
        entry["schedules"] = [self.schedule(one) for one in deployment.schedules or ()]
        entry["parameters"] = parameters_of(deployment)
        entry["tags"] = list(deployment.tags or ())
        entry["description"] = made.description if made is not None else deployment.description
        entry["version"] = made.version if made is not None else deployment.version
        entry["paused"] = deployment.paused or None  # False is the default, and would undo a pause at each registration
        entry["pause_on_shutdown"] = self.pause_on_shutdown(start, deployment)
        entry["concurrency_limit"] = concurrency_of(deployment)
        entry["enforce_parameter_schema"] = False if not deployment.enforce_parameter_schema else None
        entry["triggers"] = [plain(one) for one in getattr(deployment, "triggers", None) or ()]
        entry["work_pool"] = pool_of(deployment)
        entry["run"] = self.run(start, deployment)
        entry["source"] = self.source(getattr(deployment, "storage", None))
        self.note_of_host(start)
        self.note_rest(deployment, made)
        return {"line": line, "entry": {key: value for key, value in entry.items() if value not in (None, [], {}, "")}}

    def note(self, message: str, start: Start | None = None) -> None:
        """Note what is left out: of a Runner by the line that starts it, of a deployment by its own."""
        one = {"line": next(iter(start.lines), None) if start is not None else self.line, "message": message}
        if one not in self.left_out:
            self.left_out.append(one)

    def entrypoint(self, deployment: Any) -> str:
        entrypoint = str(deployment.entrypoint)
        if ":" in entrypoint:
            path, _, function = entrypoint.rpartition(":")
            return f"{os.path.normpath(path)}:{function}"
        module, _, function = entrypoint.rpartition(".")
        if module == "__main__":
            raise Refusal("unguarded", f"{self.script}: no run can import the module __main__; serve this"
                          " flow with the entrypoint type FILE_PATH", line=self.line)  # fmt: skip
        self.note(f"entrypoint_type: the entrypoint is written {module}:{function}, which means the same to Prefect")
        return f"{module}:{function}"

    def schedule(self, item: Any) -> dict[str, Any]:
        rule = getattr(item, "schedule", item)
        found: dict[str, Any] = {}
        for key in ("cron", "interval", "rrule", "timezone"):
            found[key] = getattr(rule, key, None)
        if found["interval"] is not None:
            seconds = found["interval"].total_seconds()
            found["interval"] = int(seconds) if seconds == int(seconds) else seconds
            anchor = getattr(rule, "anchor_date", None)
            if anchor is not None and anchor.timestamp() < self.began_s:  # else it is the default: now
                found["anchor_date"] = anchor.isoformat()
        if getattr(rule, "day_or", True) is False:
            found["day_or"] = False
        if getattr(item, "active", None) is False:
            found["active"] = False
        for key in ("max_scheduled_runs", "slug", "parameters"):
            found[key] = plain(getattr(item, key, None) or None)
        return {key: value for key, value in found.items() if value is not None}

    def pause_on_shutdown(self, start: Start, deployment: Any) -> bool | None:
        """Return what the script says; Prefect's default, True, is the host's to decide (stop.pause_schedules)."""
        said = start.arguments.get("pause_on_shutdown")
        if not isinstance(said, bool) or not deployment.work_pool_name:
            return said if isinstance(said, bool) else None
        if said:
            self.note("pause_on_shutdown=True: a deployment in a work pool is never paused")
        return None

    def run(self, start: Start, deployment: Any) -> dict[str, Any]:
        said: dict[str, Any] = {}
        limit = start.arguments.get("limit")
        if isinstance(limit, int):
            said["limit"] = limit
            if self.together(start.runner) > 1:
                said["limit_group"] = ":".join([self.script, *map(str, start.lines[:1])])
        beat = start.arguments.get("heartbeat_seconds")
        if beat is not None:
            said["environment"] = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": f"{beat:g}"}
        storage: Any = getattr(deployment, "storage", None)
        if type(storage).__name__ == "LocalStorage":
            said["working_directory"] = str(storage.destination)
        return said

    def source(self, storage: Any) -> dict[str, Any] | None:
        kind = type(storage).__name__
        if storage is None or kind == "LocalStorage":
            return None
        interval = getattr(storage, "pull_interval", None)
        every = {"pull_interval": f"{interval}s"} if interval else {}
        url = without_login(str(getattr(storage, "_url", "")))
        if kind == "GitRepository":
            git = {key: getattr(storage, name, None) for name, key in GIT_KEYS.items()}
            if getattr(storage, "_credentials", None) or url != storage._url:
                self.note("the credentials of the repository: write them into a file, and name the file in"
                          " source.git.credentials_file")  # fmt: skip
            return {"git": {"url": url, **{key: value for key, value in git.items() if value}}, **every}
        if kind == "RemoteStorage":
            if getattr(storage, "_settings", None):
                self.note("the settings of the remote storage: set those of its fsspec package in run.environment")
            return {"remote": url, **every}
        self.note(f"the code is in a {kind}, which has no equivalent; put the code on this host")
        return None

    def note_of_host(self, start: Start) -> None:
        said = start.arguments
        for key, place in OF_THE_HOST.items():
            if said.get(key) and not (key == "prefetch_seconds" and said[key] == 10):
                self.note(f"{key}={said[key]!r} is a setting of the whole host: {place}", start)
        if said.get("run_once"):
            self.note("run_once=True: runnerd --once does so for the whole host", start)

    def note_rest(self, deployment: Any, made: Made | None) -> None:
        if made is not None and deployment.flow_name not in (None, made.flow.name):
            self.note(f"flow_name={deployment.flow_name!r}: the deployment is registered for the flow"
                      f" {made.flow.name!r}, as its code says")  # fmt: skip
        schema = getattr(deployment, "_parameter_openapi_schema", None)
        frozen = [name for name, its in getattr(schema, "properties", {}).items() if its.get("readOnly")]
        if frozen:
            self.note(f"freeze() of {', '.join(frozen)}: such a parameter can be changed here")
        if getattr(deployment, "_sla", None):
            self.note("_sla has no equivalent; set it in Prefect Cloud")
        version_type = getattr(deployment, "version_type", None)
        if version_type not in (None, "prefect:simple"):
            self.note(f"version_type={version_type!r}: only the version itself is registered")


def without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def parameters_of(deployment: Any) -> Any:
    """Return the parameters as JSON, written as Prefect's client writes them."""
    try:
        if hasattr(deployment, "model_dump"):
            return deployment.model_dump(mode="json", include={"parameters"})["parameters"]
        return json.loads(deployment.json(include={"parameters"}))["parameters"]
    except Exception as exc:
        raise Refusal("failed", f"the parameters of {deployment.name} are no JSON: {words_of(exc)}") from exc


def concurrency_of(deployment: Any) -> Any:
    options = getattr(deployment, "concurrency_options", None)
    limit = getattr(deployment, "concurrency_limit", None)
    if options is None or limit is None:
        return limit
    said = {"limit": limit, "collision_strategy": getattr(options.collision_strategy, "value", None)}
    said["grace_period_seconds"] = getattr(options, "grace_period_seconds", None)
    return {key: value for key, value in said.items() if value is not None}


def pool_of(deployment: Any) -> dict[str, Any]:
    if not deployment.work_pool_name:
        return {}
    said = {"name": deployment.work_pool_name, "work_queue_name": deployment.work_queue_name}
    said["job_variables"] = plain(deployment.job_variables or None)
    return {key: value for key, value in said.items() if value is not None}


def plain(value: Any) -> Any:
    """Return what a model or a value of the script is in JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    if hasattr(value, "json") and callable(value.json):
        return json.loads(value.json(exclude_unset=True, exclude_none=True))
    return json.loads(json.dumps(value, default=str))
