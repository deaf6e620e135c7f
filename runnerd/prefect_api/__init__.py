"""Makes all requests to Prefect's API; no other package knows a URL, a JSON key or a difference of 2.20 and 3.x.

This module imports nothing heavy: `client` imports httpx; `dialect`, `answers` and `parse` do not.
"""

from __future__ import annotations

import sys

# httpx imports its own command line where click, rich and pygments are installed: 5 MiB that a daemon never uses.
# httpx does without that module where it cannot be imported; None has to be in place before the first `import httpx`.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
