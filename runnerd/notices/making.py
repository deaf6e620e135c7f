"""Makes the notices of one end of a run, or of a run that is late: those of the host, then those of its deployment.

Invariant: the id of a notice is computed from what it is about and its place in the files, so that no daemon makes the
same one twice.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from runnerd.config.in_force import ConfigInForce
from runnerd.core.exit_words import time_text
from runnerd.core.machine import RunRecord
from runnerd.core.notices import Notice, NoticeEvent, Notices, NoticeTarget, event_of
from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun, due
from runnerd.core.settings import Deployment, RunSettings
from runnerd.log.log import Log
from runnerd.system.containment import Containment

_NAMESPACE = uuid.UUID("4f3a2f0e-7f5b-5b52-9d27-6a3f6c7f0d13")
_HOST = "host"
Find = Callable[[str | None], Deployment | None]


@dataclass(frozen=True, slots=True)
class _Run:
    id: str
    name: str
    deployment_id: str | None
    deployment: str
    pool: str | None
    user: str | None


class NoticeMaker:
    """Makes notices. `find` finds a deployment of this host by its id, also one that has left the files.

    `ended`, `late`: make the document of a run as `runnerctl runs --json` has it, of a claimed one and of one on offer.
    """

    def __init__(
        self,
        *,
        config: ConfigInForce,
        find: Find,
        ended: Callable[[RunRecord], Json],
        late: Callable[[FlowRun], Json],
        now: Callable[[], datetime],
        log: Log,
    ) -> None:
        self._config = config
        self._find = find
        self._ended = ended
        self._late = late
        self._now = now
        self._contained = Containment(log=log, loop="notices", passing=())

    def document(self, record: RunRecord, event: str | None = None) -> Json:
        """Return the document of a run for commands: that of `runnerctl runs --json`, and `words`, `event`, `host`.

        Of a state that the flow itself has reported, its own words say why it failed; "exited 0" does not.
        """
        words = record.api_state_message or record.words
        return {**self._ended(record), "words": words, "event": event, "host": self._config.settings().name}

    def of_end(self, record: RunRecord) -> tuple[Notice, ...]:
        """Make the notices of a run that is done; none where its state in the API is no end, or was not read."""
        # Contained: nothing that goes wrong here may keep the run from being done.
        with self._contained.item(f"run {record.id}"):
            return self._of_end(record)
        return ()

    def _of_end(self, record: RunRecord) -> tuple[Notice, ...]:
        event = event_of(record.api_state)
        targets = [] if event is None or record.unread else list(self._targets(event, record.deployment_id))
        if event is None or not targets:
            return ()
        run = _Run(record.id, record.name, record.deployment_id, record.deployment, record.pool, record.user)
        about = f"{record.id} {record.attempt} {record.transition_id}"
        return self._make(event, about, run, self.document(record, event), targets)

    def of_late(self, run: FlowRun) -> tuple[Notice, ...]:
        """Make the notices of a run that has not begun though it is past its time."""
        event = NoticeEvent.ON_LATE
        targets = list(self._targets(event, run.deployment_id))
        if not targets:
            return ()
        words = f"has not begun; it fell due at {time_text(due(run))}"
        document = {**self._late(run), "words": words, "event": event, "host": self._config.settings().name}
        known = self._find(run.deployment_id)
        name = known.name if known is not None else "?"
        subject = _Run(run.id, run.name, run.deployment_id, name, run.pool, known.run.user if known else None)
        return self._make(event, f"{run.id} {due(run)}", subject, document, targets)

    def settings(self, notice: Notice) -> RunSettings:
        """Return the settings with which the command of a notice is run: those of its deployment or pool.

        Of a run whose deployment has left the files meanwhile, only the user is known.
        """
        known = self._find(notice.deployment_id)
        if notice.pool is not None:
            pools = (pool.run for pool in self._config.current.pools if pool.name == notice.pool)
            # Not in the directory of the job, which comes from the API, or is removed by now.
            found = next((replace(run, working_directory="/") for run in pools), None)
        else:
            found = known.run if known is not None else None
        run = found or RunSettings(python="python3", working_directory="/")
        return run if run.user is not None else replace(run, user=notice.user)

    def target_in_force(self, notice: Notice) -> NoticeTarget | None:
        """Return whom this notice is for by the files as they are now; None where they have nobody any more.

        A target that was corrected is found by its place. While a deployment is not known, whom it has is not either.
        """
        if not notice.place or (not notice.place.startswith(_HOST) and self._find(notice.deployment_id) is None):
            return notice.target
        targets = dict(self._targets(notice.event, notice.deployment_id))
        return notice.target if notice.target in targets.values() else targets.get(notice.place)

    def _targets(self, event: NoticeEvent, deployment_id: str | None) -> Iterator[tuple[str, NoticeTarget]]:
        """List the targets, each with the place that tells it from the others."""
        deployment = self._find(deployment_id)
        of: list[tuple[str, Notices]] = [(_HOST, self._config.settings().notices)]
        if deployment is not None:
            of.append(("deployment", deployment.notices))
        for scope, notices in of:
            for index, target in enumerate(notices.get(event, ())):
                yield f"{scope} {index}", target

    def _make(
        self, event: NoticeEvent, about: str, run: _Run, document: Json, targets: list[tuple[str, NoticeTarget]]
    ) -> tuple[Notice, ...]:
        now = self._now()
        return tuple(
            Notice(
                id=str(uuid.uuid5(_NAMESPACE, f"{about} {event} {place}")),
                event=event,
                run_id=run.id,
                run_name=run.name,
                deployment=run.deployment,
                deployment_id=run.deployment_id,
                pool=run.pool,
                user=run.user,
                target=target,
                place=place,
                document=document,
                created_at=now,
                next_at=now,
            )
            for place, target in targets
        )
