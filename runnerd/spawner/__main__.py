"""Run runnerd-spawner: adopt the runs of an earlier spawner, serve the socket until a signal or `retire` ends it.

The end of the spawner ends no run: runs live on, their records stay on disk, and the next spawner adopts both.
Exit status: 0 ended by SIGTERM, SIGINT, `retire` or idleness; 64 wrong usage; 71 cannot serve; 75 another spawner
serves this runtime directory.
"""

from __future__ import annotations

import os
import sys

if not __package__:
    # Started by path under `python -I -S` (without the memory of `site`), so sys.path does not lead to the package.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from runnerd.spawner import program


def main() -> int:
    return program.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
