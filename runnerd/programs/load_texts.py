"""Runs a program that travels as several texts: JSON in RUNNERD_TEXTS, by module name; the last text is the program.

An interpreter that has no runnerd finds these modules all the same, and one that has another runnerd finds these.
"""

import json
import os
import sys
import types

texts = list(json.loads(os.environ.pop("RUNNERD_TEXTS")).items())
for name, text in texts[:-1]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, f"<{name}>", "exec"), module.__dict__)
exec(compile(texts[-1][1], f"<{texts[-1][0]}>", "exec"), {"__name__": "__main__"})
