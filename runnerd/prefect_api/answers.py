"""Holds the values that calls of the API return, so that "the server said no" is never an exception.

This module knows no JSON and no HTTP, and imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from runnerd.core.place import Json
from runnerd.core.prefect import ApiState, FlowRun


class ClaimOutcome(StrEnum):
    """Names how a claim ended. `gone`: the flow run was deleted. `lost`: another host has it, or it must not start."""

    WON = "won"
    LOST = "lost"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Describes how a claim ended: `state` is the flow run's state after the claim, `reason` the server's words."""

    outcome: ClaimOutcome
    state: ApiState | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Describes the server's answer to a proposed state.

    `accepted` is also true for the repeat of a transition that the server accepted before. `gone`: the flow run was
    deleted. `wait_s`: the server asks to propose the same state again after so many seconds; None when it does not.
    """

    accepted: bool
    state: ApiState | None = None
    reason: str | None = None
    gone: bool = False
    wait_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRefusal:
    """Means that the server refuses a request: `reason` is the server's, or ours where no request was needed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """Describes the server. `major` chooses the dialect; `why` gives the reason when the version is not `supported`."""

    version: str
    major: int
    supported: bool = True
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsuredFlow:
    """Holds the id of a flow that exists now; `is_new`: this very request created it, so it has no deployment."""

    id: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentBody:
    """Holds a deployment in one server's exact JSON, without the flow's id; made by dialect.deployment_body."""

    flow_name: str
    json: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Counts the flow runs that were left out of answers because their JSON is unreadable; `why`: the latest reason."""

    count: int = 0
    why: str | None = None


class Page(list[FlowRun]):
    """Holds the readable flow runs of one answer; `full`: there may be more behind them.

    `unreadable`: the ids of the deployments whose runs were left out, as far as those say so.
    """

    def __init__(
        self, runs: Iterable[FlowRun] = (), *, full: bool = False, unreadable: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(runs)
        self.full = full
        self.unreadable = unreadable
