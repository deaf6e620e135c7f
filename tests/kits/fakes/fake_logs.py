"""The logs of FakePrefect: lines of flow runs, with the bodies that the servers take."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.kits.fakes.fake_prefect_rules import MISSING, Refusal

Json = Any
_KEYS = frozenset({"name", "level", "message", "timestamp", "flow_run_id", "task_run_id"})


class FakeLogs:
    """The lines in the order in which they came."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Json]] = []

    def of(self, run_id: str) -> list[str]:
        """The messages of a run as the UI shows them: by their times."""
        return [line["message"] for line in self._sorted(line for line in self.lines if line["flow_run_id"] == run_id)]

    def answer(self, rest: list[str], body: Json) -> tuple[int, Json]:
        if rest == ["filter"]:
            return 200, self._find(body)
        if rest:
            raise MISSING
        for line in body:
            for key in line.keys() - _KEYS:
                raise Refusal.invalid(["body", key], "Extra inputs are not permitted")
            if "\0" in line["message"]:
                raise Refusal(503, {"exception_message": "Service Unavailable"})  # a database refuses it
        self.lines += body
        return 201, None

    def _find(self, body: Json) -> list[Json]:
        wanted = body["logs"]
        runs, times = wanted["flow_run_id"]["any_"], wanted.get("timestamp") or {}
        after, before = (datetime.fromisoformat(times[key]) if key in times else None for key in ("after_", "before_"))
        found = [line for line in self._sorted(self.lines) if line["flow_run_id"] in runs]
        found = [line for line in found if after is None or datetime.fromisoformat(line["timestamp"]) >= after]
        found = [line for line in found if before is None or datetime.fromisoformat(line["timestamp"]) <= before]
        return found[: body.get("limit", 200)]

    @staticmethod
    def _sorted(lines: Any) -> list[dict[str, Json]]:
        return sorted(lines, key=lambda line: datetime.fromisoformat(line["timestamp"]))
