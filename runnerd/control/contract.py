"""What the control API needs from the daemon, and the shape of the documents that go through it.

Invariants: every method that is not `async` answers at once from memory; every document is a fresh dict that nobody
changes afterwards; "the host will not" is a `Refused`, never an exception. An id passed in was taken from a document
of `find_runs` or `find_deployments` a moment ago, but the thing may be gone by then: answer `Refused(status=404)`.

Documents (keys may be added, these stay; times are RFC 3339 in UTC, sizes bytes, durations seconds):
  status      STATUS_FIELDS. `api`: url, state, since, detail. `draining`: bool. `drain`: null, or since, reason, until.
              `limits`: {"runs": {"used", "max"}} and {"tags": {TAG: {"used", "max"}}}. `problems`: PROBLEM_FIELDS each.
  run         RUN_FIELDS. `phase` null until it is claimed here, "done" once it is over and told. `intent` null, or why
              we end it. `api_state` is Prefect's state type (COMPLETED), `api_state_name` the state's name (TimedOut).
              `exit` null, or code, signal, oom, words. May have `waiting`: what keeps it from being claimed.
  deployment  DEPLOYMENT_FIELDS
  health      {"ok": bool, "checks": [{"name", "ok", "detail"}]}
  doctor      {"ok": bool, "checks": [{"name", "state", "detail", "remedy"}]}. `state` is ok, warning, error or unknown;
              `remedy` may be null; `ok` is false where one of them is an error.
  pool        POOL_FIELDS. `served`: this host's configuration names it. Of one pool also `base_job_template`, `queues`
              (queue each) and `workers` (name, status, last_heartbeat_at each). Of one just asked for also `created`:
              false where it was there and was updated.
  queue       QUEUE_FIELDS. `default`: the one of its pool that runs come to without a queue. `filter`: null, or what
              a queue of the old kind takes.
  preview     `runs`: OFFER_FIELDS each, in the order of delivery, `late` where it was due before now. `paused`: the
              names of pools and pool/queues that deliver nothing. `whole`: false where there may be more.
  worker type type, package, description; of one type also `base_job_template`.
  reload      {"ok": bool, "added": [..], "changed": [..], "removed": [..], "unchanged": n, "pools": {..}, "problems":
              [..]}. The names of deployments; `pools` says the same four of pools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from runnerd.core.place import Json
from runnerd.core.prefect import NewPool, NewQueue

STATUS_FIELDS: Final = frozenset(
    "name version pid started_at api draining drain limits runs deployments problems".split()
)
RUN_FIELDS: Final = frozenset(
    "id name deployment flow phase intent pid pgid user start created_at started_at ended_at"
    " api_state api_state_name exit memory_bytes cpu_seconds".split()
)
DEPLOYMENT_FIELDS: Final = frozenset("id name flow file line state problem next_run_at running limit".split())
POOL_FIELDS: Final = frozenset("id name type description paused concurrency_limit status served".split())
QUEUE_FIELDS: Final = frozenset(
    "id name pool default description paused concurrency_limit priority status last_polled_at filter".split()
)
OFFER_FIELDS: Final = frozenset(
    "id name pool queue deployment deployment_id tags due_at late api_state api_state_name".split()
)
PROBLEM_FIELDS: Final = frozenset("message file line column deployment".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process that asked, as the kernel says (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


class Pools(Protocol):
    """The API's work pools and queues; every method waits for the API. `pool=None` means every pool.

    `changes` are keys of the document; a concurrency limit of None removes the limit. A change returns the document
    after it, a deletion the last document.
    """

    async def pools(self) -> Json | Refused: ...
    async def pool(self, name: str) -> Json | Refused: ...
    async def preview(self, pool: str | None, queue: str | None, *, hours: int) -> Json | Refused: ...
    async def create_pool(self, new: NewPool, *, update: bool) -> Json | Refused:
        """Create a work pool, with the base job template of its type unless `new` has one.

        With `update`, make an existing pool of this name equal to `new`, except for its type and its queues.
        """

    async def change_pool(self, name: str, changes: Mapping[str, Json]) -> Json | Refused: ...
    async def delete_pool(self, name: str) -> Json | Refused: ...
    async def queues(self, pool: str | None) -> Json | Refused: ...
    async def queue(self, pool: str, name: str) -> Json | Refused: ...
    async def create_queue(self, new: NewQueue) -> Json | Refused: ...
    async def change_queue(self, pool: str, name: str, changes: Mapping[str, Json]) -> Json | Refused: ...
    async def delete_queue(self, pool: str, name: str) -> Json | Refused: ...
    async def worker_types(self) -> Json | Refused: ...
    async def worker_type(self, name: str) -> Json | Refused: ...


class Runs(Protocol):
    """The runs of this host."""

    async def adopted(self) -> None:
        """Return once the runs of the last daemon are known: before, nothing that changes something is asked."""

    def listing(self, *, history: bool) -> list[Json]:
        """The runs here now, oldest first; with `history` those that are done as well."""

    def document(self, run_id: str) -> Json | None:
        """The run with this very id, live or done; None when the host never had it or has forgotten it."""

    def find(self, ref: str) -> list[Json]:
        """Every run, live or done, that `ref` may mean: the one with this id, else those with this name, else those
        whose id starts with it."""

    def subscribe(self, changed: Callable[[Json], None]) -> Callable[[], None]:
        """Call `changed` in the loop with a run's document after each change, the last one with phase "done".

        Returns what ends it. `changed` neither blocks nor raises.
        """

    def output(self, run_id: str) -> str | None:
        """The output file of the run's last attempt; None while it has none."""

    async def cancel(self, run_ids: Sequence[str], *, now: bool, peer: Peer) -> list[Json]:
        """Ask for each to be cancelled (`now`: by SIGKILL at once) and return their documents without waiting for
        their end. A run that is done is left alone."""

    async def create(
        self, deployment_id: str, *, parameters: Json, name: str | None, tags: Sequence[str], peer: Peer
    ) -> Json | Refused:
        """Create a flow run in the API, due now; its document, with phase null until it is claimed here."""

    async def execute(self, flow_run_id: str, *, peer: Peer) -> Json | Refused:
        """Claim and start this one flow run here, whatever its deployment; its document."""


class Deployments(Protocol):
    """The deployments of this host's files."""

    def listing(self) -> list[Json]: ...

    def find(self, ref: str) -> list[Json]:
        """Every deployment that `ref` may mean: the one with this id, else "flow/name", else those with this name."""

    async def set_paused(self, deployment_id: str, paused: bool, *, peer: Peer) -> Json | Refused:
        """Stop or resume its schedules; its document afterwards."""


class Host(Protocol):
    """A running daemon, as the control API sees it."""

    @property
    def runs(self) -> Runs: ...

    @property
    def deployments(self) -> Deployments: ...

    @property
    def pools(self) -> Pools: ...

    def status(self) -> Json: ...

    def health(self) -> tuple[bool, Json]:
        """Whether all is well, and the health document."""

    async def doctor(self) -> Json:
        """The doctor document: looks at this host, which takes up to half a minute."""

    def config(self) -> Json:
        """The merged configuration in force, without secrets."""

    async def metrics(self) -> str:
        """Prometheus text."""

    async def reload(self, *, peer: Peer) -> Json:
        """Read the configuration again; the reload document once it is in force (or was refused)."""

    def drain(self, *, timeout_s: float | None, reason: str | None, peer: Peer) -> Json:
        """Stop claiming; after `timeout_s` (None: never) end what still runs. The status document afterwards."""

    def undrain(self, *, peer: Peer) -> Json:
        """Claim again; the status document afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The host will not or cannot: `detail` says why and what to do.

    `status` is 403 not permitted, 404 gone, 409 not now, 422 the request is wrong, 503 the API does not answer.
    """

    status: Literal[403, 404, 409, 422, 503]
    detail: str
