"""The fields of every JSON document of the control API, and what they mean.

Documents. Keys may be added; the keys listed here stay. Times are RFC 3339 in UTC, sizes bytes, durations seconds.
  status      STATUS_FIELDS. `api`: url, state (ok, degraded or unreachable), maintenance (true: the API
              is degraded because of its maintenance), since, detail; requests_per_minute: how many runnerd sent it in
              the last minute, the openings of WebSockets too; `stream`, of its events: state (live; silent:
              none is known to arrive; connecting or off), since, detail, events (of this host or others, so far).
              `draining`: bool. `drain`: null, or since, reason,
              until, stopping (true after SIGTERM, when undrain is refused).
              `limits`: {"runs": {"used", "max"}} and {"tags": {TAG: {"used", "max"}}}. `problems`: PROBLEM_FIELDS each.
              `waiting`: WAITING_FIELDS each, the runs that are due or claimed and cannot start, the first 100 by due
              time; `waiting_total`: how many there are.
              `usage_at`: when memory_bytes and cpu_seconds of the live runs were measured, at most about a second
              ago; null before the first time.
              `warm`: WARM_FIELDS each, the warm interpreters, and those that have failed. `state`: importing, ready or
              failed; `since`: when it was started, null for one that has failed, as `pid` and `memory_bytes` (its
              resident memory) are; `runs`: how many were forked from it; `problem`: why it has failed, null otherwise.
              `notices`: the first 100 notices that cannot be sent: event (such as on_failure), run (its id), name,
              deployment, to (whom, without secrets), tries, created_at, next_at (null for one that is given up),
              given_up, problem.
  run         RUN_FIELDS. `created_at`: when its present attempt was claimed; before the claim, when it is due.
              `kind`: flow or command; null for a run that this host does not have.
              `run_created_at`: when it was created in Prefect; null where that is not known.
              `due_at`: when the flow of a run that was claimed ahead of its time begins. `held`: true while its
              process waits for that, in phase running. `ready_seconds`: from that claim until its process was ready for
              the flow, known once the process has ended. Else null.
              `phase`: null before the claim, "done" after the end was reported to Prefect. `intent`: null,
              or why runnerd ends the run. `api_state`: Prefect's state type (COMPLETED). `api_state_name`: the name of
              that state (TimedOut). `api_state_message`: what the flow's process said of that state; null where runnerd
              has reported it, in the words of `exit`. `exit`: null, or code, signal, oom, words. `output_removed`:
              null, or the setting for which the stored output was removed. `waiting`: null, or the limit that delays
              the claim, or what keeps a claimed run from being started or reported, such as a command of run.before.
              `pid`, `pgid`: of its process, also once that has ended (`ended_at`), and another may have the number.
              `start`: cold, or warm (forked from a warm interpreter). `start_problem`: null, or why not warm.
              `here`: false for a run that this host does not have, which is read from Prefect where its full id is
              given; such a run has no phase. `entrypoint`: the code that was named for this run alone, null mostly.
  attempt     attempt (its number), bytes (of stored output), cut (true when the oldest part was removed to hold
              run.output_max), shown (true for the one that /logs has where no attempt is named). At most the newest
              100 attempts of which there is output are listed.
  waiting     WAITING_FIELDS. `phase`: null before the claim. `waiting`: the limit, the drain, the disk or the API for
              which it waits; in phase reporting the API, which has not taken the report of its end. `parent`: null, or
              the id of the live run of this host that has created the run.
  deployment  DEPLOYMENT_FIELDS. `running`: how many live runs it has; `held`: how many of these wait until they are
              due. `pool`: the work pool whose workers start its runs; null when this host starts them.
              `kind`: flow or command, null where its section is invalid. `command`: null, or the command in one line as
              it is written, with its placeholders; `entrypoint` is null then.
              `source`: null, or where its code is pulled from: kind (git, remote, directory), url without secrets,
              commit (what is in force), pulled_at, problem (why the last pull failed), held (the commit it is held
              at). A run's `source` has the first five, as they were when the run was started.
  health      {"ok": bool, "checks": [{"name", "ok", "detail"}]}
  doctor      {"ok": bool, "checks": [{"name", "state", "detail", "remedy"}]}. `state`: ok, warning, error or unknown.
              `remedy` may be null. `ok`: false when any check is an error.
  pool        POOL_FIELDS. `served`: true when the configuration of this host names the pool. The document of a single
              pool adds `created_at`, `updated_at`, `base_job_template`, `queues` (queue each) and `workers` (name,
              status, last_heartbeat_at each). The answer to a creation adds `created`: false when the pool existed and
              was updated.
  queue       QUEUE_FIELDS. `default`: true for the queue of its pool that takes runs without a queue. `filter`: null,
              or which runs a tag-based queue of Prefect 2 takes.
  preview     `runs`: OFFER_FIELDS each, in the order of delivery; `late`: true when the run was due before now.
              Behind them those that are not delivered: `waiting` is the pause or the concurrency limit for which.
              `paused`: the names of paused pools ("POOL") and queues ("POOL/QUEUE"). `paused_deployments`: the names
              of deployments whose schedules create no runs, at most 200; null when the server cannot list them.
              `unchecked_limits`: the queues ("POOL/QUEUE") beyond the first 20 with runs and a concurrency limit: their
              occupied slots are not counted. `whole`: false when there may be more runs than listed. A preview is no
              poll: it changes no status of a queue.
  worker type type, package, description; the document of a single type adds `base_job_template`.
  config      The keys of the files, with every default. `service`: what the daemon has besides its files: directory (of
              the configuration), api_url (PREFECT_API_URL or null), flow_user (RUNNERD_FLOW_USER or null), users (null
              where unknown, or as whom the spawner starts flows: list, root, owner).
  plan        PLAN_FIELDS: how a run would be started; control/backend/plan_documents.py has what each field means.
  reload      {"ok": bool, "applied": bool, "settled": bool, "settings": [..], "added": [..], "changed": [..],
              "removed": [..], "unchanged": n, "pools": {..}, "problems": [..]}. `applied`: false when the files cannot
              be used at all, so that the last good configuration stays in force as a whole. `settled`: false when
              deployments are still being registered, or work pools asked for; that is among the problems, and goes on.
              `settings`: key, old, new, restart (true: it changes at a restart of runnerd), file, line, column of each
              key of the host that has another value; values are as in `config`, those of headers hidden. Deployments
              by name; `pools` has the same four keys for work pools. The request may have {"inspect": true}: inspect
              all flows again.
"""

from __future__ import annotations

from typing import Final

STATUS_FIELDS: Final = frozenset(
    "name version pid started_at api draining drain limits runs waiting waiting_total usage_at deployments"
    " warm problems".split()
)
RUN_FIELDS: Final = frozenset(
    "id name deployment flow phase intent pid pgid user start created_at started_at ended_at"
    " api_state api_state_name exit memory_bytes cpu_seconds".split()
)
WARM_FIELDS: Final = frozenset("python user preload state since pid memory_bytes runs problem".split())
WAITING_FIELDS: Final = frozenset("id name deployment flow pool queue due_at phase waiting parent".split())
DEPLOYMENT_FIELDS: Final = frozenset("id name flow file line state problem next_run_at running limit".split())
POOL_FIELDS: Final = frozenset("id name type description paused concurrency_limit status served".split())
QUEUE_FIELDS: Final = frozenset(
    "id name pool default description paused concurrency_limit priority status last_polled_at filter".split()
)
OFFER_FIELDS: Final = frozenset(
    "id name pool queue deployment deployment_id tags due_at late waiting api_state api_state_name".split()
)
PLAN_FIELDS: Final = frozenset(
    "kind id name deployment flow pool queue served user group command directory entrypoint scratch source before after"
    " environment limits start due_at next problem held_by".split()
)
PROBLEM_FIELDS: Final = frozenset("message file line column deployment".split())
