"""The sentences of docs/benchmarks.md."""

from __future__ import annotations

INTRODUCTION = """\
# Benchmarks

Written by `make bench`: runnerd beside Prefect's own ways to run deployments of a host, on one machine, in one go. The
raw samples are in [benchmarks.json](benchmarks.json).

This was the mode **{mode}**: {words}.

{machine}"""
LEGEND = """\
A figure is the median (requests, processor time: the mean; 99th percentile where it says so), then the least and the
most of so many samples. † is wide: its quartiles are more than {wide} of the median apart, also after it was repeated
as often as there was time. "over" is a lower bound, because a time limit ended half of the samples or more. A target
for another count of runs than the documented one (12 s warm and 36 s cold for 40 runs) is scaled by the count.
"""
HOW = {
    "floor": """\
The requests that one cold run of runnerd causes are recorded, and made again for new runs by as many threads as the
limit allows, with no process at all. Polls and events (WebSockets) are left out. What this takes is the server's part,
and no runner that makes these requests is quicker.
""",
    "growth": """\
All contenders idle at once, each with so many deployments without a schedule; memory is therefore a little less than
alone, because programs share pages.
""",
    "failures": """\
What a contender lost or did not do in its time. It is counted, and no figure leaves it out silently.
""",
    "all": """\
- One server of the same machine, on SQLite in a temporary directory, fresh for each round; one contender at a time, in
  another order each round, with one deployment of one flow; whatever it put on the server is deleted afterwards.
- Flows run under the interpreter that the server and Prefect's own run under. PSS therefore counts pages of libraries
  that are shared with the server by half or less, for all contenders alike.
- A warm host has had a run before it is measured, all others have not. Where it starts a run cold nevertheless, this
  is a failure.
- Limits are the same for all. Settings that are not mentioned are the defaults.
- Figures that are wide or single are repeated, in further rounds, while there is time.
- Creating a run, asking for its state and so on is done by the benchmark, over one connection, for all alike.
""",
}
