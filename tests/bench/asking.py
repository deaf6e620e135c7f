"""Asks a Prefect server as a user does: one kept connection, 503 counted and asked again."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from tests.bench.waiting import Deadline, NotReached

FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
ANSWER_S = 60.0
PAUSE_S = 0.05
TRIES = 200


class Asker:
    """One connection; of one thread. `troubles` counts the answers that were no answers."""

    def __init__(self, url: str, deadline: Deadline) -> None:
        self._at = urlsplit(url)
        self._deadline = deadline
        self._connection: http.client.HTTPConnection | None = None
        self.url = url
        self.troubles: Counter[str] = Counter()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's document; None for 404. A server that goes on answering 503 is NotReached."""
        content = None if body is None else json.dumps(body)
        for _ in range(TRIES):
            self._deadline.check()
            status, text = self._answer(method, path, content)
            if status in (0, 503):
                self.troubles["no answer" if status == 0 else "503"] += 1
                time.sleep(PAUSE_S)
                continue
            if status == 404:
                return None
            if status >= 400:
                raise NotReached(f"{method} {path}: {status} {text[:300]}")
            return json.loads(text) if text else None
        raise NotReached(f"{method} {path}: no answer in {TRIES} tries")

    def status(self, method: str, path: str, body: Any) -> int:
        """Only the status of one try; 0 for no answer."""
        return self._answer(method, path, None if body is None else json.dumps(body))[0]

    def _answer(self, method: str, path: str, content: str | None) -> tuple[int, str]:
        """Status and text; a connection that the server has closed while it was idle is no failure."""
        kept = self._connection is not None
        status, text = self._once(method, path, content)
        return self._once(method, path, content) if kept and status == 0 else (status, text)

    def _once(self, method: str, path: str, content: str | None) -> tuple[int, str]:
        if self._connection is None:
            limit_s = max(1.0, min(ANSWER_S, self._deadline.left_s))
            self._connection = http.client.HTTPConnection(str(self._at.hostname), self._at.port, timeout=limit_s)
        try:
            self._connection.request(method, self._at.path + path, content, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            self.close()
            return 0, ""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- flow runs ------------------------------------------------------------------------------------------------

    def create_run(self, deployment_id: str, how: str, *, at: float | None = None) -> str:
        """A run that is due now, or at this time (seconds since 1970); its id."""
        when = datetime.fromtimestamp(time.time() if at is None else at, UTC).isoformat()
        state = {"type": "SCHEDULED", "name": "Scheduled", "state_details": {"scheduled_time": when}}
        body = {"parameters": {"how": how}, "state": state, "idempotency_key": uuid.uuid4().hex}
        return str(self.call("POST", f"/deployments/{deployment_id}/create_flow_run", body)["id"])

    def set_state(self, run_id: str, kind: str, *, force: bool = False) -> Any:
        body = {"state": {"type": kind, "name": kind.capitalize()}, "force": force}
        return self.call("POST", f"/flow_runs/{run_id}/set_state", body)

    def runs(self, ids: Iterable[str]) -> list[Any]:
        """Those of these runs that the server has, at most 200."""
        chosen = list(ids)
        return list(self.call("POST", "/flow_runs/filter", {**_chosen(chosen), "limit": 200}) or []) if chosen else []

    def count_final(self, ids: Iterable[str]) -> int:
        chosen = _chosen(ids)
        chosen["flow_runs"]["state"] = {"type": {"any_": list(FINAL)}}
        return int(self.call("POST", "/flow_runs/count", chosen))

    def state(self, run_id: str) -> Any:
        return (self.call("GET", f"/flow_runs/{run_id}") or {}).get("state") or {"type": "GONE"}

    # --- deployments ----------------------------------------------------------------------------------------------

    def deployment_id(self, flow: str, name: str) -> str | None:
        found = self.call("GET", f"/deployments/name/{flow}/{name}")
        return None if found is None else str(found["id"])


def _chosen(ids: Iterable[str]) -> dict[str, Any]:
    return {"flow_runs": {"id": {"any_": list(ids)}}}


def seconds(stamp: str) -> float:
    """A time stamp of the API in seconds since 1970."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
