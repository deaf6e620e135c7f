"""Makes the launch spec of a claimed run of a work pool, from its job. Pure.

Invariants: those of launch/spec.py; the run's user and its limits come from the configuration, never from the job; the
variables that make the process this flow run are set last, and no job can change them.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, replace

from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import RunSettings
from runnerd.launch.client_defaults import over_fitting
from runnerd.launch.spec import ApiAccess, run_spec
from runnerd.pools.job.process_job import ProcessJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Whose work the run is; Prefect's client sends this with every request."""

    worker: str
    deployment_id: str
    deployment: str
    flow_id: str
    flow: str


def pool_launch_spec(
    record: RunRecord,
    job: ProcessJob,
    *,
    run: RunSettings,
    attribution: Attribution,
    access: ApiAccess,
    base: Mapping[str, str],
    file_environment: Mapping[str, str],
    output: str,
    scratch: str | None,
) -> LaunchSpec:
    """Make the launch spec of this attempt. `scratch` is the working directory when the job names none.

    Without PREFECT__FLOW_ENTRYPOINT the engine reads the deployment and fetches the code as its pull steps say.
    """
    own = {
        **access.environment,
        **file_environment,
        **run.environment,
        "PREFECT_API_URL": access.url,
        "PREFECT__WORKER_NAME": attribution.worker,
        "PREFECT__DEPLOYMENT_ID": attribution.deployment_id,
        "PREFECT__DEPLOYMENT_NAME": attribution.deployment,
        "PREFECT__FLOW_ID": attribution.flow_id,
        "PREFECT__FLOW_NAME": attribution.flow,
        **job.env,
    }
    kept = [{key: value for key, value in layer.items() if key not in job.removed} for layer in (base, own)]
    spec = run_spec(
        record,
        run,
        argv=job.command or (run.python, "-m", "prefect.engine"),
        environment={
            **over_fitting(*kept, url=access.url, is_own_command=job.command is None),
            "PREFECT__FLOW_RUN_ID": record.id,
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",  # the daemon runs them (ADR 16)
            "RUNNERD_RUN_ID": record.id,
            "RUNNERD_DEPLOYMENT": record.deployment,
            "RUNNERD_POOL": record.pool or "",
        },
        working_directory=_directory(job, run, scratch),
        output=output,
    )
    # The administrator's is the most: a job must not keep the host from stopping.
    stop_timeout_s = min(run.stop_timeout_s, job.grace_period_s or run.stop_timeout_s)
    return replace(spec, stop_timeout_s=stop_timeout_s, make_directory=scratch is not None and not job.working_dir)


def _directory(job: ProcessJob, run: RunSettings, scratch: str | None) -> str:
    if job.working_dir:
        return os.path.join(run.working_directory, job.working_dir)
    return scratch or run.working_directory
