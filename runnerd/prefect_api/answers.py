"""What the API's callers get back: frozen values, so that "the server said no" is never an exception.

No JSON and no HTTP in here; importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from runnerd.core.place import Json
from runnerd.core.prefect import ApiState


class ClaimOutcome(StrEnum):
    """`gone`: the flow run was deleted. `lost`: it is somebody else's, or the server would not have it start."""

    WON = "won"
    LOST = "lost"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """How a claim ended; `state` is the flow run's state as it stands now, `reason` the server's words."""

    outcome: ClaimOutcome
    state: ApiState | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the server made of a proposed state.

    `accepted` is also true for the repeat of a transition it accepted before. `gone`: the flow run was deleted.
    `wait_s` is set when the server asks to propose the same again after so many seconds.
    """

    accepted: bool
    state: ApiState | None = None
    reason: str | None = None
    gone: bool = False
    wait_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRefusal:
    """The server would not do what was asked for; `reason` in its own words, or why it need not be asked."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """Which Prefect answers. `major` chooses the dialect; `why` says what to do when it is not `supported`."""

    version: str
    major: int
    supported: bool = True
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentBody:
    """A deployment in one server's exact JSON, but for the flow's id; made by dialect.deployment_body."""

    flow_name: str
    json: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Flow runs that could not be read and were left out of answers, and the latest reason."""

    count: int = 0
    why: str | None = None
