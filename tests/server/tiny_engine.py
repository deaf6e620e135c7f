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


def tell(state):
    url = f"{os.environ['PREFECT_API_URL']}/flow_runs/{os.environ['PREFECT__FLOW_RUN_ID']}/set_state"
    body = json.dumps({"state": {"type": state}}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    for _ in range(100):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                said = json.load(answer)
            if said["status"] != "WAIT":  # it is not due yet
                return said["status"]
            time.sleep(said["details"]["delay_seconds"])
        except urllib.error.HTTPError as error:
            if error.code != 503:  # SQLite servers are busy now and then
                raise
            time.sleep(0.1)
    raise SystemExit("the API was busy or said wait a hundred times")


def main(marks, gate=None):
    if tell("RUNNING") != "ACCEPT":
        return
    with open(marks, "a") as file:
        file.write(f"{os.environ['PREFECT__FLOW_RUN_ID']} {os.environ.get('PREFECT__WORKER_NAME')}\n")
    while gate is not None and not os.path.exists(gate):
        time.sleep(0.1)
    tell("COMPLETED")


main(*sys.argv[1:])
