"""Runs a script under the stand-in for Prefect's Runner, as its user and within its limits, through the spawner."""

from __future__ import annotations

import asyncio
from functools import partial

from runnerd.core.errors import SpawnerError
from runnerd.core.recording import Recorded, RecordingFailure, Said
from runnerd.core.settings import ScriptSettings
from runnerd.deployments.recording import parse_recording, recording_spec
from runnerd.files.bounded_calls import Unanswered
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess, flow_environment
from runnerd.processes.helper import name_helper, run_helper
from runnerd.processes.link import SpawnerLink, describe_end

_NO_ACCESS = ApiAccess(url="http://127.0.0.1:1/api", environment={})  # nothing answers there; see record_script.py


class ScriptRecorder:
    """Runs scripts; the files with their answers are in `work_dir` until they are read."""

    def __init__(self, *, link: SpawnerLink, environments: Environments, work_dir: str) -> None:
        self._link = link
        self._environments = environments
        self._work_dir = work_dir

    async def record(self, script: ScriptSettings) -> Recorded:
        """Say what a script serves, or why that is not known."""
        run = script.run
        layers = await self._environments.build_layers(run)
        if isinstance(layers, str | Unanswered):
            return RecordingFailure(said=Said(f"{script.path}: {layers}"))
        base, from_file = layers
        names = name_helper(self._work_dir)
        spec = recording_spec(
            run,
            script=script.path,
            environment=flow_environment(run, access=_NO_ACCESS, base=base, file_environment=from_file),
            key=names.key,
            output=names.output,
            result=names.result,
        )
        try:
            done = await run_helper(spec, link=self._link)
        except SpawnerError as error:
            return RecordingFailure(said=Said(f"{script.path}: {error}"))
        words = describe_end(done.record, memory_max_bytes=run.memory_max_bytes)
        return await asyncio.to_thread(partial(parse_recording, done.answer, script.path, words=words))
