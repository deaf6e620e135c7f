"""Resolves job templates with Prefect's own functions, offline: run by the interpreter of an installed Prefect.

Reads cases as JSON on stdin, writes what Prefect makes of each, its own templates and an agent's job to stdout.
"""

import asyncio
import copy
import json
import os
import sys
from types import SimpleNamespace

from prefect.exceptions import ObjectNotFound
from prefect.utilities.templating import apply_values
from prefect.workers.base import BaseJobConfiguration, BaseWorker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker


class Captured:
    """In the place of a job configuration's class: keeps what it would have been made from."""

    _get_base_config_defaults = staticmethod(BaseJobConfiguration._get_base_config_defaults)
    from_template_and_values = classmethod(BaseJobConfiguration.from_template_and_values.__func__)

    def __init__(self, **populated):
        self.populated = populated

    def prepare_for_flow_run(self, *_given, **_more):
        pass


class Client:
    """Answers what a worker asks for one run."""

    def __init__(self, case):
        self._case = case

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_error):
        pass

    async def read_deployment(self, _id):
        return SimpleNamespace(job_variables=self._case.get("deployment", {}))

    async def read_flow(self, _id):
        return SimpleNamespace(name="etl")

    async def read_block_document_by_name(self, name, block_type_slug):
        return self._block(f"{block_type_slug}/{name}")

    async def read_block_document(self, block_document_id):
        return self._block(block_document_id)

    def _block(self, key):
        try:
            return SimpleNamespace(data=self._case["blocks"][key])
        except KeyError:
            raise ObjectNotFound(http_exc=None) from None

    async def read_variable_by_name(self, name):
        variables = self._case.get("variables", {})
        return SimpleNamespace(value=variables[name]) if name in variables else None


async def resolved(case):
    case = copy.deepcopy(case)
    client = Client(case)
    run = SimpleNamespace(deployment_id="d", flow_id="f", job_variables=case.get("run", {}))
    pool = SimpleNamespace(base_job_template=case["template"])
    os.environ.update(case.get("environment", {}))
    if hasattr(BaseJobConfiguration, "resolve_for_flow_run"):
        Captured.resolve_for_flow_run = classmethod(BaseJobConfiguration.resolve_for_flow_run.__func__)
        made = await Captured.resolve_for_flow_run(run, client=client, work_pool=pool, worker_name="w")
    else:
        worker = SimpleNamespace(_client=client, _work_pool=pool, job_configuration=Captured)
        made = await BaseWorker._get_configuration(worker, run)
    populated = made.populated
    if "context" in case:
        populated["name"] = apply_values(populated["name"], {"ctx": case["context"]})
    return populated


async def attempted(case):
    try:
        return {"configuration": await resolved(case)}
    except Exception as error:  # which one it is varies
        return {"error": f"{type(error).__name__}: {error}"}


def job(configuration):
    made = ProcessJobConfiguration(**configuration)
    directory = made.working_dir
    return {
        "env": made.env,
        "command": made.command,
        "labels": made.labels,
        "name": made.name,
        "stream_output": made.stream_output,
        "working_dir": None if directory is None else str(directory),
    }


async def main():
    given = json.load(sys.stdin)
    answer = {
        "template": ProcessWorker.get_default_base_job_template(),
        "cases": [await attempted(case) for case in given["cases"]],
        "jobs": [job(configuration) for configuration in given["jobs"]],
    }
    sys.stdout.write(json.dumps(answer))


asyncio.run(main())
