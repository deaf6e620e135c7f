"""Stands for `python -m prefect.engine` where a test needs many runs: it begins in a tenth of a second.

`tiny_engine.py MARKS [GATE]`: tells the API that the run is running, appends its id and its worker to MARKS, waits for
the file GATE, and tells the API that it is completed. Like the engine, it begins no run too early, and none that may
not begin.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

RUN = f"{os.environ['PREFECT_API_URL']}/flow_runs/{os.environ['PREFECT__FLOW_RUN_ID']}"


def ask(path="", body=None):
    request = urllib.request.Request(
        RUN + path, data=json.dumps(body).encode() if body else None, headers={"Content-Type": "application/json"}
    )
    for _ in range(100):
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:  # SQLite servers are busy now and then
                raise
            time.sleep(0.1)
    raise SystemExit("the API was busy a hundred times")


def tell(state):
    while True:
        said = ask("/set_state", {"state": {"type": state}})
        if said["status"] != "WAIT":  # it is not due yet
            return said["status"]
        time.sleep(said["details"]["delay_seconds"])


def main(marks, gate=None):
    for _ in range(100):
        # A real engine would not be there yet. Prefect 3 on SQLite is easily brought to a stop by writing at once.
        if ask()["infrastructure_pid"] is not None:
            break
        time.sleep(0.1)
    if tell("RUNNING") != "ACCEPT":
        return
    with open(marks, "a") as file:
        file.write(f"{os.environ['PREFECT__FLOW_RUN_ID']} {os.environ.get('PREFECT__WORKER_NAME')}\n")
    while gate is not None and not os.path.exists(gate):
        time.sleep(0.1)
    tell("COMPLETED")


main(*sys.argv[1:])
