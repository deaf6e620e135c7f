"""Prefect's API: the only package that knows a URL, a JSON key or a difference between 2.20 and 3.x.

It imports nothing heavy itself: `client` brings httpx in, `dialect`, `answers` and `parse` do not.
"""

from __future__ import annotations

import sys

# httpx imports its own command line where click, rich and pygments are installed: 5 MiB that a daemon never uses.
# An unimportable module is the case httpx is prepared for; it has to be in place before the first `import httpx`.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
