"""What must hold after a round: pure functions from what was seen to the violations, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.chaos.chaos_plan import ENDLESS, Plan, Wanted

ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
HOOKED = frozenset({"exits", "stubborn", "leads", "pooled-leads"})
_RIGHT = {
    "quick": {"COMPLETED"},
    "pooled": {"COMPLETED"},
    "leaves": {"COMPLETED"},
    "limited": {"COMPLETED"},
    "raises": {"FAILED"},
    "exits": {"CRASHED"},
    "segv": {"CRASHED"},
    "sleeps": {"CANCELLED"},
    "stubborn": {"CANCELLED"},
    "leads": {"CANCELLED"},
    "pooled-leads": {"CANCELLED"},
    "overruns": {"FAILED"},
    "broken": {"CRASHED", "FAILED"},
}


@dataclass(frozen=True)
class State:
    """One state of a run's history in the API."""

    type: str
    name: str
    message: str = ""
    at: str = ""

    def __str__(self) -> str:
        return f"{self.at[11:23]} {self.name}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What became of one run."""

    wanted: Wanted
    id: str
    states: tuple[State, ...]
    lines: int  # of its body's file
    hooks: tuple[str, ...] = ()
    phase: str | None = None  # in the journal
    asked: bool = False  # its cancellation was accepted
    begun_before: bool = True  # its body had begun when its cancellation was asked for

    def __str__(self) -> str:
        return f"{self.wanted.kind} {self.id}"


@dataclass(frozen=True, kw_only=True)
class RoundFacts:
    """What a round left."""

    plan: Plan
    runs: tuple[RunFacts, ...]
    unsettled: str | None = None  # what was waited for in vain
    spawner_killed: bool = False
    strangers: tuple[str, ...] = ()  # processes
    used: int = 0  # slots of this host
    unfinished: tuple[str, ...] = ()  # runs that are not done by `runnerctl runs`
    rows: tuple[str, ...] = ()  # journal rows of runs nobody created
    records: tuple[str, ...] = ()  # of the spawner
    outputs: tuple[str, ...] = ()  # files without a journal row
    files: tuple[str, ...] = ()  # in the state and runtime directories, that were not there at first
    slots: int = 0  # of the server's concurrency limit
    problems: tuple[str, ...] = ()  # in `runnerctl status`
    exits: tuple[str, ...] = ()  # of the daemon, by itself
    exceptions: tuple[str, ...] = field(default=())  # in the daemon's log


def violations(facts: RoundFacts) -> list[str]:
    """Everything that should not be."""
    found = list(_left(facts))
    for run in facts.runs:
        found += [f"{run}: {words}" for words in (*_ending(run, facts), *_body(run, facts), *_hooks(run, facts))]
        if run.phase is None and run.lines:
            found.append(f"{run}: its flow ran, and the journal does not know of it")
        if run.phase not in (None, "done"):
            found.append(f"{run}: the journal has it in {run.phase}")
    return found


# --- the state in the API -------------------------------------------------------------------------------------------


def right_ends(run: RunFacts, facts: RoundFacts) -> set[str]:
    """The final states that are right for this run."""
    right = set(_RIGHT[run.wanted.kind])
    if run.wanted.cancel is not None and run.wanted.kind not in ENDLESS:
        right |= {"CANCELLED"}
    if facts.plan.hits_flows:
        right |= {"CRASHED", "FAILED"}  # the flow itself could not reach the API
    return right


def _ending(run: RunFacts, facts: RoundFacts) -> Iterator[str]:
    types = [state.type for state in run.states]
    ends = [kind for kind in types if kind in ENDED]
    last = types[-1] if types else "no state"
    if last not in ENDED:
        yield f"did not end: it is {last}"
        return
    right = right_ends(run, facts)
    if last not in right:
        yield f"ended {last} instead of {' or '.join(sorted(right))}"
    if len(ends) > 1 and not _child_spoke_first(run, ends, facts):
        yield f"ended more than once: {', '.join(ends)}"
    if types.index(ends[0]) + len(ends) != len(types):
        yield f"went on after it had ended: {', '.join(types)}"


def _child_spoke_first(run: RunFacts, ends: list[str], facts: RoundFacts) -> bool:
    """A child that is not told why it is ended reports a crash first.

    2.20's are never told. 3's are by the spawner that started them, so not when that was killed; and a flow that is
    past hearing, because it lost the API, may say anything.
    """
    asked = run.wanted.cancel is not None or run.wanted.kind == "overruns"
    untold = facts.plan.major < 3 or facts.spawner_killed or facts.plan.hits_flows
    return asked and untold and len(ends) == 2 and ends[0] == "CRASHED"


# --- the flow's code --------------------------------------------------------------------------------------------------


def _body(run: RunFacts, facts: RoundFacts) -> Iterator[str]:
    if run.lines > 1:
        yield f"its body ran {run.lines} times"
    must = not _may_have_no_line(run, facts)
    if run.lines == 0 and must:
        yield "its body did not run"


def _may_have_no_line(run: RunFacts, facts: RoundFacts) -> bool:
    if run.states and run.states[-1].type == "COMPLETED":
        return False
    early = run.asked and not run.begun_before  # cancelled before it began
    return run.wanted.kind in ("broken", "overruns") or early or facts.plan.hits_flows


def _hooks(run: RunFacts, facts: RoundFacts) -> Iterator[str]:
    if run.wanted.kind not in HOOKED:
        return
    last = run.states[-1].type if run.states else ""
    owed = {"CANCELLED": "on_cancellation", "CRASHED": "on_crashed"}.get(last)
    for name, count in Counter(run.hooks).items():
        if count > 1:
            yield f"its {name} hooks ran {count} times"
        elif name != owed and not _child_spoke_first(run, ["CRASHED", last], facts):
            yield f"its {name} hooks ran and it ended {last}"
    if owed and owed not in run.hooks and run.lines and not facts.plan.hits_flows:
        yield f"it ended {last} and its {owed} hooks did not run"


# --- what is left -----------------------------------------------------------------------------------------------------


def _left(facts: RoundFacts) -> Iterator[str]:
    if facts.unsettled:
        yield f"not settled: {facts.unsettled}"
    groups = {
        "a process is left": facts.strangers,
        "not done by `runnerctl runs`": facts.unfinished,
        "a journal row of a run that nobody created": facts.rows,
        "the spawner keeps a record": facts.records,
        "an output file without a journal row": facts.outputs,
        "a file is left": facts.files,
        "a problem in `runnerctl status`": facts.problems,
        "the daemon ended by itself": facts.exits,
        "an exception in the daemon's log": tuple(_unexpected(facts)),
    }
    for words, found in groups.items():
        for one in found:
            yield f"{words}: {one}"
    if facts.used:
        yield f"{facts.used} slots of this host are used"
    if facts.slots:
        yield f"{facts.slots} slots of the deployment's concurrency limit are used"


def _unexpected(facts: RoundFacts) -> Iterator[str]:
    for one in facts.exceptions:
        full = facts.plan.fills_disk and ("JournalError" in one or "disk is full" in one)
        refused = facts.plan.refuses and "ApiRejected" in one
        if not full and not refused:
            yield one
