"""Lies that make cases for servers fail: faults of the second and tenth packet, and of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.conformance.faults import Fault

if TYPE_CHECKING:
    from tests.conformance.lying import Lies

_FAULTS: Final = {
    "ability/again/3": [
        (">CAN_DO", "lost", "tenth"),
        (">CAN_DO", "leaked", "tenth"),
        (">CAN_DO", "altered-last", "tenth"),
    ],
    "ability/again/5": [
        (">CAN_DO_TIMEOUT", "lost", "tenth"),
        (">CAN_DO_TIMEOUT", "leaked", "tenth"),
        (">CAN_DO_TIMEOUT", "altered-first", "tenth"),
    ],
    "option/again/1": [(">OPTION_REQ", "lost", "tenth"), ("<OPTION_RES", "duplicated", "tenth")],
    "size/jobs/5": [
        (">SUBMIT_JOB_EPOCH", "stale", "large"),
        (">SUBMIT_JOB_EPOCH", "altered-last", "tenth"),
    ],
    "ability/again/4": [(">CANT_DO", "lost", "tenth"), (">CANT_DO", "stale", "each")],
    "ability/others/1": [
        (">CANT_DO", "leaked", "each"),
        (">RESET_ABILITIES", "leaked", "each"),
        (">CAN_DO_TIMEOUT", "leaked", "each"),
    ],
    "sleep/others/1": [(">PRE_SLEEP", "leaked", "tenth"), ("<NO_JOB", "duplicated", "tenth")],
    "work/again/1": [("<WORK_STATUS", "delayed", "tenth"), ("<WORK_STATUS", "leaked", "each")],
    "work/again/2": [
        (">WORK_FAIL", "lost", "second"),
        (">WORK_FAIL", "delayed", "second"),
        ("<WORK_FAIL", "stale", "each"),
        ("<WORK_FAIL", "misdirected", "second"),
    ],
    "exception/again/1": [
        ("<WORK_EXCEPTION", "duplicated", "second"),
        ("<WORK_EXCEPTION", "leaked", "second"),
        (">WORK_EXCEPTION", "altered-last", "second"),
    ],
    "status/unique/5": [
        ("<STATUS_RES_UNIQUE", "altered-last", "tenth"),
        (">GET_STATUS_UNIQUE", "stale", "each"),
    ],
    "text/workers/4": [
        (">SET_CLIENT_ID", "lost", "second"),
        (">SET_CLIENT_ID", "altered-last", "tenth"),
        (">SET_CLIENT_ID", "leaked", "second"),
    ],
    "grab/all/4": [("<JOB_ASSIGN_ALL", "stale", "each"), ("<JOB_ASSIGN_ALL", "truncated", "large")],
}

#: Lies by case. Each lie makes the case fail on its own.
LIES: Final[dict[str, list[Lies]]] = {
    case: [Fault("server", *fault).lies for fault in faults] for case, faults in _FAULTS.items()
}
