"""Writes a configuration directory with many deployments: `make_conf.py DIR COUNT [--one-file]`.

Every deployment is valid: the directory gets the flow file, and the interpreter is the one that runs this script.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ITEM = """\
  - name: job-{number:05d}
    entrypoint: flows/etl.py:nightly
    description: Loads part {number} of yesterday.
    version: "2.1"
    tags: [etl, part-{number}]
    parameters: {{region: eu, part: {number}, options: {{retries: 3, deep: true}}}}
    schedules:
      - {{cron: "{minute} 2 * * *", timezone: Europe/Berlin}}
      - {{interval: 3600, active: false}}
    concurrency_limit: 1
    run:
      python: {python}
      working_directory: {directory}
      environment: {{LOG_LEVEL: DEBUG, PART: {number}}}
      limit: 1
      runtime_max: 2h
      memory_max: 2G
      cpu_quota: 150%
      umask: "0027"
      stop_timeout: 30s
"""


def make(directory: Path, count: int, *, one_file: bool) -> None:
    """Fills `directory`, which must exist, with `count` deployments in as many drop-ins, or in one."""
    (directory / "conf.d").mkdir()
    (directory / "flows").mkdir()
    (directory / "flows" / "etl.py").write_text("def nightly(): ...\n")
    (directory / "runnerd.yaml").write_text("api: {url: http://127.0.0.1:4200/api}\nrun: {nice: 5}\n")
    items = [
        ITEM.format(number=number, minute=number % 60, python=sys.executable, directory=directory)
        for number in range(count)
    ]
    if one_file:
        (directory / "conf.d" / "10-all.yaml").write_text("deployments:\n" + "".join(items))
        return
    for number, item in enumerate(items):
        (directory / "conf.d" / f"{number:05d}.yaml").write_text("deployments:\n" + item)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--one-file", action="store_true")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    make(options.directory, options.count, one_file=options.one_file)


if __name__ == "__main__":
    main()
