"""Holds what is notified about the ends of runs, and to whom.

Invariant: neither `repr` nor `shown` has more of a URL than its scheme, host and port: the rest is often a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from urllib.parse import urlsplit

from runnerd.core.place import Json
from runnerd.core.prefect import StateType


class NoticeEvent(StrEnum):
    """Names what notices are about, as the keys of `notices:` do."""

    ON_FAILURE = "on_failure"
    ON_CRASH = "on_crash"
    ON_CANCEL = "on_cancel"
    ON_SUCCESS = "on_success"
    ON_LATE = "on_late"


_OF_STATES = {
    StateType.FAILED: NoticeEvent.ON_FAILURE,
    StateType.CRASHED: NoticeEvent.ON_CRASH,
    StateType.CANCELLED: NoticeEvent.ON_CANCEL,
    StateType.COMPLETED: NoticeEvent.ON_SUCCESS,
}
TEMPLATES = ("raw", "slack", "ntfy", "alertmanager")


def event_of(state: StateType | None) -> NoticeEvent | None:
    """Return the event of a run that has ended in this state of the API; None for a state that is no end."""
    return _OF_STATES.get(state) if state is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeTarget:
    """Holds whom to notify: exactly one of `command`, `post` and `post_file` is set.

    `post_file`: a file with the URL. `token_file`: a file with a bearer token. `template`: one of TEMPLATES, or the
    text of the body with placeholders.
    """

    command: tuple[str, ...] = ()
    post: str | None = field(default=None, repr=False)
    post_file: str | None = None
    token_file: str | None = None
    template: str = "raw"
    timeout_s: float = 30.0

    @property
    def shown(self) -> str:
        """What this is, in words without secrets."""
        if self.command:
            return f"command {self.command[0]}"
        if self.post is not None:
            return f"POST to {shown_url(self.post)}"
        return f"POST to the URL in {self.post_file}"


def shown_url(url: str) -> str:
    """Return the scheme, host and port of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


Notices = Mapping[str, tuple[NoticeTarget, ...]]  # by NoticeEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Holds one notice from the end of its run until it is sent; the journal saves it.

    `id` is computed from the end and the target, so the same end is notified once; `place` is that of the target in the
    files. `document` is that of the run, as commands get it. `tries` counts the attempts; `begun`: the last one may
    still be under way.
    """

    id: str
    event: NoticeEvent
    run_id: str
    run_name: str
    deployment: str
    deployment_id: str | None = None
    pool: str | None = None
    user: str | None = None
    target: NoticeTarget
    place: str = ""  # such as `host 0`; that of an earlier version is not known
    document: Mapping[str, Json]
    created_at: datetime
    next_at: datetime
    tries: int = 0
    begun: bool = False
    problem: str | None = None  # why the latest attempt has failed
    given_up: bool = False
