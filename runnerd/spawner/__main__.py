"""runnerd-spawner: the program. Binds its socket, takes over what an earlier one left, serves until told to go.

Going ends no run: runs live on, their records stay, and the next spawner finds both. Flows end only by an explicit
`stop`. Exit status: 0 told to go or idle, 64 wrong usage, 71 cannot serve, 75 another spawner serves this directory.
"""

from __future__ import annotations

import os
import sys

if not __package__:
    # Started by its path under `python -I -S`, which saves the memory of `site`: nobody set the way to the package.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from runnerd.spawner import program


def main() -> int:
    return program.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
