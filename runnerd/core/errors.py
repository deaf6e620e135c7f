"""Every exception runnerd raises on purpose.

    RunnerdError
    |-- ConfigError         the configuration cannot be used at all (exit status 78)
    |-- ApiError            a request to Prefect did not get its answer
    |   |-- ApiAway         no answer, or one that asks to come back: retry later
    |   |-- ApiDenied       401 or 403: the credentials; retry slowly, an administrator may mend it
    |   `-- ApiRejected     another 4xx: this request is wrong and will stay wrong
    |-- SpawnerError        the spawner cannot be reached, or refused
    |-- JournalError        the journal cannot record
    `-- ControlError        the control socket: daemon not running, or a problem document came back

"The server said no" to a proposal is a value (prefect_api.Claim), not one of these.
A message reads: cannot <verb> <object>: <cause>.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # this module is imported by runnerctl, which must not pay for the model
    from runnerd.core.place import Problem


class RunnerdError(Exception):
    """The root; caught where one message must be shown and nothing else."""


class ConfigError(RunnerdError):
    """The configuration cannot be used at all; `problems` says where and why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(p) for p in problems))
        self.problems = tuple(problems)


class ApiError(RunnerdError):
    """A request to Prefect did not get its answer."""


class ApiAway(ApiError):
    """No answer, or 408/425/429/5xx. `retry_after_s` is the server's wish, None when it had none."""

    def __init__(
        self,
        message: str,
        *,
        answered: bool = False,
        too_long: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.answered = answered
        self.too_long = too_long  # the answer; one to a request for fewer items may be short enough
        self.retry_after_s = retry_after_s


class ApiDenied(ApiError):
    """401 or 403."""


class ApiRejected(ApiError):
    """Any other 4xx (not 404 where absence is an answer); `status` and the server's own words."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class SpawnerError(RunnerdError):
    """The spawner cannot be reached (`refused` False) or refused the request (`refused` True)."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class JournalError(RunnerdError):
    """The journal cannot record; nothing new may be claimed until it can."""


class ControlError(RunnerdError):
    """A control request failed; `status` is the HTTP status, 0 when the daemon does not answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
