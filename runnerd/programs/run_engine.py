"""Runs prefect.engine, with the flow imported in a thread: a standalone program for the flow's interpreter.

This file imports no module of runnerd, and the daemon does not import it but passes the text as `python -c TEXT`, so
that no file permission matters. The environment is the flow run's own.

With PREFECT__FLOW_ENTRYPOINT, the engine of Prefect 2 imports the file in its event loop: a block's `load` or
`asyncio.run()` at module level fails there. Without it, the engine imports in a worker thread, as under `serve()`, but
reads from the API which code to fetch and import. So the variable is taken away, and the engine's function is replaced
by one that imports this host's code in a worker thread. The engine of Prefect 3 imports outside any event loop.
"""

from __future__ import annotations

import importlib
import inspect
import os
import runpy
import sys
from typing import Any


def main() -> None:
    if sys.path[:1] == [""]:
        sys.path[0] = os.getcwd()  # as with `python -m`
    del sys.argv[1:]
    if str(importlib.import_module("prefect").__version__).startswith("2."):
        load_in_thread(os.environ.pop("PREFECT__FLOW_ENTRYPOINT"))
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def load_in_thread(entrypoint: str) -> None:
    load_flow = importlib.import_module("prefect.flows").load_flow_from_entrypoint
    # Else a flow that cannot be imported is guessed from its file's syntax tree.
    no_guess = (False,) if "use_placeholder_flow" in inspect.signature(load_flow).parameters else ()
    in_thread = importlib.import_module("prefect.utilities.asyncutils").run_sync_in_worker_thread

    async def load(*_: Any, **__: Any) -> Any:
        return await in_thread(load_flow, entrypoint, *no_guess)

    deployments: Any = importlib.import_module("prefect.deployments")
    deployments.load_flow_from_flow_run = load


if __name__ == "__main__":
    main()
