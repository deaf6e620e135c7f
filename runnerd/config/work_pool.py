"""Reads `work_pool:` and `pull:` of a deployment.

A deployment with `work_pool.name` stays in that pool: its runs are started by the pool's workers, of which this host is
one if the pool is in its `pools:`. What only applies to a run of this host's own is then refused, and the other way
round what only applies in a pool is named.
"""

from __future__ import annotations

from runnerd.config.placeholders import refuse_outputs
from runnerd.config.run_settings import read_run
from runnerd.config.sections import Flaws, Table, Values
from runnerd.config.yaml_nodes import List, Map, make_plain
from runnerd.core.place import Json

# The keys of run: that serve to inspect the flow on this host, and the limit that this host keeps for any deployment.
_RUN_KEYS_IN_POOL = ("python", "user", "group", "working_directory", "environment", "environment_file", "limit")
_JOB_VARIABLES_WITHOUT_POOL = ("env", "working_dir")


def pool_name(deployment: Map) -> str | None:
    """Return the name of the work pool in which the deployment is, None without one."""
    pool = deployment.get("work_pool")
    name = pool.get("name") if isinstance(pool, Map) else None
    return name if isinstance(name, str) and name else None


def read_pool(deployment: Map, file: Map, outputs: frozenset[str], flaws: Flaws) -> dict[str, Json]:
    """Read what a deployment in a pool has besides: queue, job variables, pull steps; nothing without a pool."""
    name = pool_name(deployment)
    pool = deployment.get("work_pool")
    if name is None or not isinstance(pool, Map):
        _name_what_needs_a_pool(pool, flaws)
        return {}
    _refuse_run_keys(deployment, flaws)
    said: dict[str, Json] = {"work_pool": name}
    if pool.get("work_queue_name"):
        said["work_queue"] = pool["work_queue_name"]
    if pool.get("job_variables"):
        said["job_variables"] = make_plain(pool["job_variables"])
    holder = deployment if deployment.get("pull") is not None else file
    refuse_outputs(holder, outputs, flaws)
    steps = holder.get("pull")
    if steps is not None:
        said["pull_steps"] = tuple(make_plain(steps)) if isinstance(steps, List) else (make_plain(steps),)
    return said


def _refuse_run_keys(deployment: Map, flaws: Flaws) -> None:
    run = deployment.get("run")
    if not isinstance(run, Map):
        return
    for key in run:
        if key not in _RUN_KEYS_IN_POOL and not flaws.at("run", key):
            message = f"run.{key} has no effect in a work pool; set it in run: of the pool in pools:, or leave it out"
            flaws.add(("run", key), message, run.key_place(key))


def _name_what_needs_a_pool(pool: Json, flaws: Flaws) -> None:
    if not isinstance(pool, Map):
        return
    vain = [(pool, "work_queue_name", "")] if pool.get("work_queue_name") else []
    variables = pool.get("job_variables")
    if isinstance(variables, Map):
        vain += [(variables, key, "job_variables.") for key in variables if key not in _JOB_VARIABLES_WITHOUT_POOL]
    for holder, key, prefix in vain:
        message = f"work_pool.{prefix}{key} has no effect without work_pool.name; name the pool, or leave it out"
        flaws.warn(message, holder.key_place(key))


def read_job_variables(deployment: Map, table: Table, flaws: Flaws) -> Values:
    """Read `work_pool.job_variables.env` and `.working_dir`, the process worker's names for two keys of `run:`.

    Nothing in a pool, where the worker fills in placeholders first.
    """
    pool = deployment.get("work_pool")
    if pool_name(deployment) is not None or not isinstance(pool, Map):
        return Values()
    names = {"env": table["environment"], "working_dir": table["working_directory"]}
    return read_run(pool.get("job_variables"), names, ("work_pool", "job_variables"), flaws)
