"""Defines all exceptions that runnerd raises on purpose.

    RunnerdError
    |-- ConfigError         the configuration cannot be used at all (exit status 78)
    |-- ApiError            a request to Prefect failed
    |   |-- ApiAway         no answer, or a failure of the server: retry later
    |   |-- ApiDenied       401 or 403: wrong credentials; retry slowly, until an administrator corrects them
    |   `-- ApiRejected     another 4xx: the request is wrong, and a retry does not help
    |-- SpawnerError        the spawner cannot be reached, or refuses a request
    |-- JournalError        the journal cannot save a record
    `-- ControlError        a control request failed: no daemon, or a problem document

"The server said no" to a proposal is a value (prefect_api.Claim), not an exception.
A message reads: cannot <verb> <object>: <cause>.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # runnerctl imports this module, and must start fast
    from runnerd.core.place import Problem


class RunnerdError(Exception):
    """Base of all exceptions of runnerd; caught where only the message is shown."""


class ConfigError(RunnerdError):
    """Means that the configuration cannot be used at all; `problems` says where and why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = tuple(problems)


class ApiError(RunnerdError):
    """Means that a request to Prefect failed; `may_be_own`: it may be the only one that fails."""

    may_be_own = True


class ApiAway(ApiError):
    """Means no answer, or 408, 425, 429 or 5xx. `retry_after_s`: seconds of the server's Retry-After, or None.

    `answered`: the server answered this request, so that another request may succeed. `maintenance`: the server refuses
    every request for a while and says so, which is no failure.
    `later`: the answer asks to come again later, or says that the server behind a proxy is away (502 to 504).
    `unsure`: the request may have arrived, and have taken effect, though it was not answered.
    """

    def __init__(
        self,
        message: str,
        *,
        answered: bool = False,
        too_long: bool = False,
        maintenance: bool = False,
        later: bool = False,
        unsure: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.answered = answered
        self.may_be_own = answered and not maintenance
        self.maintenance = maintenance
        self.too_long = too_long  # the answer; one to a request for fewer items may be short enough
        self.later = later
        self.unsure = unsure
        self.retry_after_s = retry_after_s


class ApiDenied(ApiError):
    """Means 401 or 403, or no readable credentials. `forbidden`: 403, accepted credentials may not do this."""

    def __init__(self, message: str, *, forbidden: bool = False) -> None:
        super().__init__(message)
        self.may_be_own = forbidden


class ApiRejected(ApiError):
    """Means another 4xx, except a 404 that is an answer. `status`: of HTTP; the message has the server's words."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class SpawnerError(RunnerdError):
    """Means that the spawner cannot be reached (`refused` False) or refused the request (`refused` True)."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class NotRecorded(SpawnerError):
    """Means that the spawner cannot write a run's record, on a full disk for example, and started nothing."""


class JournalError(RunnerdError):
    """Means that the journal cannot save a record; no run may be claimed until it can."""


class ControlError(RunnerdError):
    """Means that a control request failed; `status` is the HTTP status, 0 when the daemon does not answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
