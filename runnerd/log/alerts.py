"""Alerts: a MESSAGE_ID for each kind of event that an administrator may write an alerting rule for. Pure.

Invariant: an id never changes its meaning, because rules name it; packaging/systemd/runnerd.catalog explains each id.
"""

from __future__ import annotations

from enum import StrEnum

from runnerd.core.machine import Intent, Phase, RunRecord
from runnerd.core.prefect import ApiCondition, ApiHealth, StateType


class Alert(StrEnum):
    """journald's MESSAGE_ID of each alert; new ones are made with `systemd-id128 new`."""

    RUN_CRASHED = "9fb09e2f6ee841d595dfa4f61a743c13"
    RUN_OUT_OF_MEMORY = "b22ec417614a411fbe7acd11f656e7e1"
    RUN_TIMED_OUT = "7f1944a7a60441be962d69bebb0adf0f"
    API_OK = "98c8b87eb1af4655b920c1fecb3ce0f2"
    API_UNREACHABLE = "05aa8102af364ee5825ca7fc49da00b6"
    API_MAINTENANCE = "55634b97610a4b35a90e00de71bb653a"
    API_DENIED = "0d63cd803f6c4646bad6cd0019f7f54d"
    API_DEGRADED = "22ff0046a0624034a20ba3f90eb0e250"
    CONFIG_PROBLEM = "f35dc37f53614a08a48fcb948acd7b34"
    RELOAD_REFUSED = "56adf187196445ffb759fc19d7e3fad4"
    REGISTER_FAILED = "7565115a363b458598d93890768e4ee7"
    SPAWNER_LOST = "12fc382cb9e5476db42b4dcf53e9e7a3"
    JOURNAL_FAILS = "8442682156f240c1afcebc458684b63f"
    JOURNAL_WORKS = "7cc3c4cfd2804e6f936f987cfdd3e81d"
    JOURNAL_DAMAGED = "13c893198d254469afbbc5a73437d0af"
    CANNOT_START = "e66e766222a2459cb3b555b69f7aa79b"
    READY = "596587b523e04705b4aafe8014eecb2d"
    HANDING_OVER = "c60620afec684518aa3bb99567762d7f"
    DRAINING = "249a32afb3e84ddcbbd3e3efe16f2b6d"
    STOPPED = "15a1e0dc4036417ab40872d44f83169d"
    WATCHDOG_STARVED = "18d92429ca234e0c9baa565675bbd6b8"
    SERVER_ENDED = "013f57f680f04d24915111fccf486bc4"
    WORKER_ENDED = "b6e53acc96b04d2f9ee3be50e11d1d38"
    FAULT = "aa77a108b1a740f08744e1a746e24316"


def alert_of_run(record: RunRecord) -> Alert | None:
    """Choose the alert for a run that has just entered its phase: at most one per run, none for a cancelled run.

    CRASHED is alerted in phase `done` only: before the run's state was read from the API, the run may turn out to have
    finished first.
    """
    ended = record.phase is Phase.REPORTING
    out_of_memory = record.exit is not None and record.exit.oom
    if out_of_memory:
        return Alert.RUN_OUT_OF_MEMORY if ended else None
    if record.intent is Intent.TIMEOUT:
        return Alert.RUN_TIMED_OUT if ended else None
    done = record.phase is Phase.DONE
    crashed = done and record.intent is None and record.api_state is StateType.CRASHED
    return Alert.RUN_CRASHED if crashed else None


def alert_of_api(health: ApiHealth) -> Alert:
    """Choose the alert for the API's health; 401 and 403 are API_DENIED: fix this host's credentials."""
    match health.condition:
        case ApiCondition.OK:
            return Alert.API_OK
        case ApiCondition.UNREACHABLE:
            return Alert.API_UNREACHABLE
        case ApiCondition.MAINTENANCE:
            return Alert.API_MAINTENANCE
    return Alert.API_DENIED if health.detail.startswith(("401:", "403:")) else Alert.API_DEGRADED
