"""Flows whose hooks write down that they ran: one line each, with the hook, the run, the state and who ran it."""

import os
import signal
import time
from functools import partial

from prefect import flow, pause_flow_run

MARKS = os.environ.get("MARKS", "/dev/null")


def mark(hook: str, flow_run: object, state: object) -> None:
    line = f"{hook} {flow_run.id} {state.type.value} {os.getuid()} {os.environ.get('MINE')}\n"  # type: ignore[attr-defined]
    with open(MARKS, "a") as file:
        file.write(line)


def cancelled(flow, flow_run, state):  # type: ignore[no-untyped-def]
    mark("on_cancellation", flow_run, state)


def crashed(flow, flow_run, state):  # type: ignore[no-untyped-def]
    mark("on_crashed", flow_run, state)


async def crashed_too(flow, flow_run, state):  # type: ignore[no-untyped-def]
    mark("on_crashed_async", flow_run, state)


def failed(flow, flow_run, state):  # type: ignore[no-untyped-def]
    mark("on_failure", flow_run, state)


def completed(flow, flow_run, state):  # type: ignore[no-untyped-def]
    mark("on_completion", flow_run, state)


def broken(flow, flow_run, state):  # type: ignore[no-untyped-def]
    raise ValueError("a hook that is broken")


def endless(flow, flow_run, state):  # type: ignore[no-untyped-def]
    mark("endless", flow_run, state)
    time.sleep(600)


def keyword_only(*, flow, flow_run, state):  # type: ignore[no-untyped-def]
    mark("keyword_only", flow_run, state)


async def other_order(state, flow_run, flow):  # type: ignore[no-untyped-def]
    mark("other_order", flow_run, state)


def notify(channel, flow, flow_run, state):  # type: ignore[no-untyped-def]
    mark(channel, flow_run, state)


def takes_some(flow_run, **others):  # type: ignore[no-untyped-def]
    mark("takes_some", flow_run, others["state"])


CALLED = [keyword_only, other_order, partial(notify, channel="partial"), takes_some]
ALL = {
    "on_cancellation": [cancelled],
    "on_crashed": [broken, crashed, crashed_too],
    "on_failure": [failed],
    "on_completion": [completed],
}


@flow(**ALL)
def hooked(stubborn: bool = False) -> None:
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(MARKS, "a") as file:
        file.write("began\n")
    end = time.monotonic() + 600
    while time.monotonic() < end:
        time.sleep(1)


@flow(**ALL)
def leaves() -> None:
    raise SystemExit(3)


@flow(**ALL)
def finishes() -> None:
    print("done")


@flow(on_crashed=[endless])
def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@flow(on_cancellation=CALLED, on_crashed=CALLED)
def called() -> None:
    with open(MARKS, "a") as file:
        file.write("began\n")
    time.sleep(600)


@flow(retries=1, retry_delay_seconds=600, **ALL)
def retries() -> None:
    raise ValueError("the first time never works")


@flow(**ALL)
def pauses() -> None:
    pause_flow_run(timeout=600)
