"""The interface between the routes of the control API and the daemon.

Invariants: a method that is not `async` answers at once from memory; each document is a new dict that is not changed
after it is returned; a refusal is a `Refused` value, never an exception. An id passed to a method comes from a document
that `find` returned a moment ago; if the run or deployment has gone since, the method returns `Refused(status=404)`.

Requests. A name (in a path, a query or a body) has at most NAME_MAX characters and no control character, a list at most
1,000 names, a description at most TEXT_MAX characters (core/names.py); JSON is read by core/strict_json.py. Everything
else, an unknown or repeated key too, is answered with 400 or 422.

The fields of the documents are in control/fields.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from runnerd.core.place import Json
from runnerd.core.prefect import FlowRun, NewPool, NewQueue
from runnerd.output.output_file import OutputBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end of the Unix socket, as the kernel identified it when it connected.

    `groups` are its supplementary groups, empty where the kernel does not list them.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunElsewhere:
    """A run that Prefect has and this host does not.

    `run` is for HostRuns.cancel; `kept`: why this host does not cancel the run, None when it does.
    """

    document: Json
    run: FlowRun
    kept: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChange:
    """Pull a source now; or revert it to `commit`, None for the one before, and hold that; or `release` it."""

    verb: Literal["pull", "revert"]
    commit: str | None = None
    release: bool = False


class HostPools(Protocol):
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


class HostRuns(Protocol):
    """The runs of this host."""

    async def adopted(self) -> None:
        """Wait until the runs of the previous daemon are known. The routes make no change before that."""

    async def measure(self) -> None:
        """Measure what the live runs use, for the documents that are built next; not again within a second.

        A document that is built without this has the usage of a moment ago, or none.
        """

    def listing(self, *, history: bool) -> list[Json]:
        """List the live runs, oldest first; with `history`, the runs that are done before them."""

    def listing_waiting(self) -> list[Json]:
        """List the runs that wait as the status document does, at most 1,000: those on offer, and claimed ones."""

    def waiting(self) -> list[Json]:
        """List the due runs that are on offer and wait for a limit."""

    def document(self, run_id: str) -> Json | None:
        """Return the run with exactly this id, live or done; None when this host has no record of such a run."""

    def find(self, ref: str) -> list[Json]:
        """List the runs, live or done, that `ref` may mean.

        These are the run with this id, else the runs with this name, else the runs whose id starts with `ref`.
        """

    async def read_elsewhere(self, run_ids: Sequence[str]) -> dict[str, RunElsewhere] | Refused:
        """Read runs that `find` does not find from Prefect, by their full ids; those that Prefect lacks are left out.

        Takes some seconds at most; refused with 503 when Prefect does not answer within that time.
        """

    def subscribe(self, changed: Callable[[Json], None]) -> Callable[[], None]:
        """Call `changed` in the loop with a run's document after each change, the last one with phase "done".

        Returns the function that ends the subscription. `changed` must neither block nor raise.
        """

    def output(self, run_id: str, *, attempt: int | None = None) -> str | None:
        """Return the path of the output file of this attempt; None before the first attempt starts.

        Without an attempt, of the last one that started; None while one is under way and has not started yet.
        """

    async def attempts(self, run_id: str) -> list[Json] | str:
        """List the documents of the attempts of which there is output, the oldest first, or say why not."""

    async def read_output(self, path: str, offset: int) -> OutputBlock | str:
        """Read the block at `offset` of an output file, or say why the file cannot be read."""

    async def cancel(
        self, run_ids: Sequence[str], *, now: bool, peer: Peer, elsewhere: Sequence[FlowRun] = ()
    ) -> list[Json] | Refused:
        """Request the cancellation of each run and return their documents, without waiting for the runs to end.

        `now`: send SIGKILL at once. A run that is done stays as it is. A run on offer is taken off offer and cancelled
        in Prefect: its document says done. So is a run of `elsewhere`, which this host does not have. While Prefect
        does not answer, that is refused with 503, the run is not started, and it is cancelled when Prefect answers.
        """

    async def create(
        self, deployment_id: str, *, parameters: Json, name: str | None, tags: Sequence[str], peer: Peer
    ) -> Json | Refused:
        """Create a flow run in Prefect, due now, and return its document, with phase null until the run is claimed."""

    async def execute(
        self, flow_run_id: str, *, again: bool, entrypoint: str | None = None, peer: Peer
    ) -> Json | Refused:
        """Claim and start this flow run here and now, and return its document; `again`: also if it is Completed.

        A run of no deployment or pool of this host, and any with an `entrypoint`, is started by the host's own `run:`.
        """


class HostDeployments(Protocol):
    """The deployments in this host's configuration."""

    def listing(self) -> list[Json]:
        """List the deployments, the invalid ones last."""

    def find(self, ref: str) -> list[Json]:
        """List the deployments that `ref` may mean.

        These are the deployment with this id, else the one named "flow/name", else the ones with this name.
        """

    async def set_paused(self, deployment_id: str, paused: bool, *, peer: Peer) -> Json | Refused:
        """Pause or resume the deployment in Prefect and return its new document."""

    async def change_source(self, ref: str, change: SourceChange, *, peer: Peer) -> Json | Refused:
        """Pull the source of the deployment that `ref` means, hold a commit of it or release it; return the document.

        Takes up to a minute; refused with 409, with the cause, when the code cannot be pulled: nothing is changed then.
        """


class HostLaunches(Protocol):
    """Starts of runs: what one would be, and another one of a run that has ended. Every method waits for the API."""

    async def retry(self, run_id: str, *, peer: Peer) -> Json | Refused:
        """Schedule a run that has ended again, with the same id, due now; return its document, with phase null."""

    async def plan_run(self, run_id: str) -> Json | Refused:
        """Return the plan of a start of this run; nothing is started."""

    async def plan_deployment(self, ref: str) -> Json | Refused:
        """Return the plan of a start of a run of this deployment, by its id, name or flow/name; nothing is started."""


class Host(Protocol):
    """The running daemon, as the routes see it."""

    @property
    def runs(self) -> HostRuns: ...

    @property
    def deployments(self) -> HostDeployments: ...

    @property
    def pools(self) -> HostPools: ...

    @property
    def launches(self) -> HostLaunches: ...

    def status(self) -> Json:
        """Return the status document."""

    def health(self) -> tuple[bool, Json]:
        """Return whether every health check passes, and the health document."""

    async def doctor(self) -> Json:
        """Run the doctor's checks of this host, which take up to half a minute, and return the doctor document."""

    def config(self) -> Json:
        """Return the merged configuration in force, without secrets."""

    async def metrics(self) -> str:
        """Return the metrics in Prometheus' text format."""

    async def reload(self, *, inspect: bool, peer: Peer) -> Json:
        """Read the configuration again and return the reload document, once the new one is in force or refused.

        With `inspect`, inspect all flows again, also where nothing seems to have changed.
        """

    def drain(self, *, timeout_s: float | None, reason: str | None, peer: Peer) -> Json:
        """Stop claiming runs, end the live ones after `timeout_s` seconds, and return the status document.

        None: as before when the host drains already, else never, and a reason of our own.
        """

    def undrain(self, *, peer: Peer) -> Json | Refused:
        """Claim runs again and return the status document; refused with 409 while the daemon stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The refusal of a request; `detail` says why and what to do.

    `status`: 403 not permitted, 404 not found, 409 not possible now, 422 invalid request, 503 no answer from the API.
    """

    status: Literal[403, 404, 409, 422, 503]
    detail: str
