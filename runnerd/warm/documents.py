"""Builds the documents of the warm interpreters, for the status."""

from __future__ import annotations

from runnerd.core.exit_words import time_text
from runnerd.core.place import Json
from runnerd.system.usage import read_resident_bytes
from runnerd.warm.interpreter import Interpreter
from runnerd.warm.plan import Plan
from runnerd.warm.table import WarmTable


def warm_documents(table: WarmTable) -> list[Json]:
    """Return the interpreters, the one first that was used longest ago, and those that have failed."""
    there = table.all()
    plans = {one.plan for one in there}
    failed = [(plan, why) for plan, why in table.failures.failed().items() if plan not in plans]
    return [
        *map(_document, there),
        *(_plan_document(plan) | {"state": "failed", "problem": why} for plan, why in failed),
    ]


def _document(interpreter: Interpreter) -> dict[str, Json]:
    record = interpreter.record
    identity = record.identity if record is not None and record.phase != "exited" else None
    return _plan_document(interpreter.plan) | {
        "state": interpreter.state,
        "since": time_text(interpreter.since),
        "pid": identity.pid if identity is not None else None,
        "memory_bytes": read_resident_bytes(identity) if identity is not None else None,
        "runs": interpreter.runs,
    }


def _plan_document(plan: Plan) -> dict[str, Json]:
    absent = dict.fromkeys(("state", "since", "pid", "memory_bytes", "problem"))
    return {"python": plan.python, "user": plan.user, "preload": list(plan.preload), **absent, "runs": 0}
