"""Looks at everything a round left, for the checks, and tells the story of a round that went wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.chaos.chaos_checks import RoundFacts, RunFacts, State
from tests.chaos.chaos_host import ChaosHost
from tests.chaos.chaos_round import Playing, Round

GRACE_S = 5.0  # for what is on its way out when the last run is told
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WRONG = re.compile(r"Traceback \(most recent|keeps refusing|rejects the verdict|the daemon ends")


def gather(played: Round, unsettled: str | None, known: set[str]) -> RoundFacts:
    """`known` are all runs that were ever created for this host."""
    host = played.host
    rows = host.journal()
    status = host.status() or {"limits": {"runs": {"used": 0}}, "problems": [], "runs": []}
    return RoundFacts(
        plan=played.plan,
        runs=tuple(_run(host, run, rows) for run in played.runs),
        unsettled=unsettled,
        spawner_killed=played.spawner_killed,
        strangers=_gone(lambda: [f"{pid} {command}" for pid, command in host.strangers().items()]),
        used=status["limits"]["runs"]["used"],
        unfinished=tuple(f"{run['id']} {run['phase']}" for run in status["runs"]),
        rows=tuple(sorted(set(rows) - known)),
        records=_gone(host.records),
        outputs=tuple(name for name in host.outputs() if not set(_UUID.findall(name)) & set(rows)),
        files=_gone(lambda: [*sorted(host.files() - host.furniture), *host.directories()]),
        slots=int(next(iter(_gone(lambda: _slots(host))), "0")),
        problems=_gone(lambda: [problem["message"] for problem in (host.status() or status)["problems"]]),
        exits=tuple(played.exits),
        exceptions=tuple(_exceptions(host.page())),
    )


def _gone(look: Callable[[], list[str]]) -> tuple[str, ...]:
    """What is still there after a moment's grace."""
    until = time.monotonic() + GRACE_S
    while found := look():
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    return tuple(found)


def _slots(host: ChaosHost) -> list[str]:
    if "limited" not in host.ids:
        return []
    limit = host.api.call("GET", f"/v2/concurrency_limits/deployment:{host.ids['limited']}")
    return [str(limit["active_slots"])] if limit and limit["active_slots"] else []


def _run(host: ChaosHost, run: Playing, rows: dict[str, str]) -> RunFacts:
    return RunFacts(
        wanted=run.wanted,
        id=run.id,
        states=tuple(_states(host, run.id)),
        lines=len(_lines(run.mark)),
        hooks=tuple(_lines(run.mark + ".hooks")),
        phase=rows.get(run.id),
        asked=run.asked,
        begun_before=run.begun_before,
    )


def _states(host: ChaosHost, run_id: str) -> Iterator[State]:
    states = host.api.call("GET", f"/flow_run_states/?flow_run_id={run_id}")
    for state in sorted(states, key=lambda state: str(state["timestamp"])):
        yield State(type=state["type"], name=state["name"], message=state["message"] or "", at=state["timestamp"])


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except FileNotFoundError:
        return []


def _exceptions(page: str) -> Iterator[str]:
    lines = page.splitlines()
    for number, line in enumerate(lines):
        if not _WRONG.search(line):
            continue
        if "Traceback" not in line:
            yield line.strip()
            continue
        ends = (text for text in lines[number + 1 :] if text and not text.startswith((" ", "|", "+")))
        yield next(ends, line).strip()


def story(played: Round, facts: RoundFacts) -> str:
    """All that helps to see why."""
    parts = [f"plan: {played.plan}", f"injected: {', '.join(played.injected) or 'nothing'}"]
    for run in facts.runs:
        parts.append(f"--- {run}, {run.lines} lines, hooks {list(run.hooks)}; its states:")
        parts += [f"    {state}" for state in run.states]
        parts.append("  its journal:")
        parts += [f"    {line}" for line in played.host.transitions(run.id)]
    parts.append("--- the daemon's calls that concern a run:")
    parts += [
        f"    {call.n} {call.method} {call.path} {_proposed(call.body)} -> {call.status} {call.fault or ''}"
        for call in played.proxy.calls
        if call.who == "daemon" and "get_scheduled" not in call.path and "filter" not in call.path
    ][-60:]
    log = played.host.page().splitlines()
    parts += ["--- the daemon's log:", *(f"    {line[:400]}" for line in log[-80:])]
    spawner = played.host.root / "log" / "spawner.log"
    if spawner.exists():
        parts += ["--- the spawner's log:", *(f"    {line[:300]}" for line in spawner.read_text().splitlines()[-25:])]
    return "\n".join(parts)


def _proposed(body: object) -> str:
    state = body.get("state") if isinstance(body, dict) else None
    return str(state.get("name")) if isinstance(state, dict) else ""
