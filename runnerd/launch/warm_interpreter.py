"""Make the command of a warm interpreter, which runs runnerd/programs/warm_interpreter.py. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from runnerd.launch.spec import PROGRAM, program_text

PRELOAD = "RUNNERD_PRELOAD"  # the environment variable with the names of the modules, a list in JSON
# The exception of a forked run leaves by the last line: its traceback must not show the frames of this program.
_COMMAND = f"""import os
exec(os.environ.pop('{PROGRAM}'))
try: run()
except BaseException as error:
 hide_frame(error)
 raise"""


def warm_argv(python: str) -> tuple[str, ...]:
    """Make the argv of a warm interpreter of this python."""
    return (python, "-c", _COMMAND, "runnerd-warm-interpreter")


def warm_environment(preload: Sequence[str] = ()) -> dict[str, str]:
    """Make the variables that a warm interpreter needs, besides those of `fixed_at_start`."""
    return {PROGRAM: program_text("warm_interpreter"), PRELOAD: json.dumps(list(preload))}
