"""Lies that make cases for servers fail: workers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from tests.conformance.lying import (
    Lie,
    after,
    as_kind,
    becomes,
    before,
    close,
    drop,
    field_of,
    packet,
    twice,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_ASSIGN: Final = "<JOB_ASSIGN_UNIQ"
_NOOP: Final = packet("<NOOP")
_NO_JOB: Final = packet("<NO_JOB")
_JOB: Final = packet(_ASSIGN, b"H:conformance:1", b"function", b"", b"data")
_RESET: Final = packet(">RESET_ABILITIES")
_ERROR: Final = packet("<ERROR", b"NOT_KNOWN", b"text")


def _one_function() -> Lie:
    """Make the server confuse two functions."""
    return field_of(">CAN_DO", 0, lambda name: name.removesuffix(b"-other"))


def _failure() -> Lie:
    """Replace WORK_EXCEPTION by WORK_FAIL."""
    return Lie("<WORK_EXCEPTION", lambda args: packet("<WORK_FAIL", args[0]))


def _exception() -> Lie:
    """Replace WORK_FAIL by WORK_EXCEPTION."""
    return Lie("<WORK_FAIL", lambda args: packet("<WORK_EXCEPTION", args[0], b"exception"))


def _until_nul(name: str) -> Lie:
    """Truncate the data at the first NUL."""
    return field_of(name, 1, lambda data: data.split(b"\0")[0])


def _swapped(name: str, number: int, one: bytes, other: bytes) -> Lie:
    """Exchange the values of two jobs."""
    swap = {one: other, other: one}
    return field_of(name, number, lambda data: swap.get(data, data))


def _numbered(name: str, number: int) -> Lie:
    """Give an argument a different value each time."""
    count = itertools.count(1)
    return field_of(name, number, lambda _: b"%d" % next(count))


def _up_to(count: int, name: str, replacement: bytes) -> Lie:
    """Replace all packets after the first `count`, over all connections."""
    counter = itertools.count()
    return Lie(name, lambda args: packet(name, *args) if next(counter) < count else replacement)


def _late_data() -> list[Lie]:
    """Send the first WORK_DATA after the first WORK_STATUS."""
    data = Lie(
        "<WORK_STATUS",
        lambda args: packet("<WORK_STATUS", *args) + packet("<WORK_DATA", args[0], b"1"),
    )
    return [drop("<WORK_DATA", last=1), data]


def _without_nul() -> Lie:
    """Drop the NUL after the handle of WORK_COMPLETE."""
    return Lie("<WORK_COMPLETE", lambda args: packet("<WORK_COMPLETE", args[0]))


def _both_ends() -> Lie:
    """Send WORK_FAIL after WORK_COMPLETE."""
    return Lie(
        "<WORK_COMPLETE",
        lambda args: packet("<WORK_COMPLETE", *args) + packet("<WORK_FAIL", args[0]),
    )


#: Lies by case. Each lie makes the case fail on its own.
LIES: Final[dict[str, list[Callable[[], list[Lie]]]]] = {
    "ability/function/1": [lambda: [_one_function()]],
    "ability/function/2": [
        lambda: [drop(">CAN_DO", first=1)],
        lambda: [field_of(_ASSIGN, 1, b"other")],
    ],
    "ability/function/3": [lambda: [drop(">CAN_DO", first=50)]],
    "ability/again/1": [lambda: [twice("<NOOP")], lambda: [becomes("<NO_JOB", _JOB)]],
    "ability/cant/1": [lambda: [drop(">CANT_DO")], lambda: [close(">CANT_DO")]],
    "ability/cant/2": [lambda: [becomes(">CANT_DO", _RESET)]],
    "ability/cant/3": [lambda: [close(">CANT_DO")], lambda: [becomes(">CANT_DO", _RESET)]],
    "ability/cant/4": [lambda: [drop(">CANT_DO")]],
    "ability/cant/5": [lambda: [drop(">CAN_DO", first=1)]],
    "ability/reset/1": [lambda: [drop(">RESET_ABILITIES")]],
    "ability/reset/2": [lambda: [drop(">CAN_DO", first=1)]],
    "ability/timeout/1": [lambda: [drop(">CAN_DO_TIMEOUT")], lambda: [drop("<NOOP")]],
    "ability/timeout/2": [lambda: [drop(">CANT_DO")]],
    "ability/id/1": [
        lambda: [close(">SET_CLIENT_ID")],
        lambda: [becomes(">SET_CLIENT_ID", _RESET)],
    ],
    "grab/none/1": [
        lambda: [drop("<NO_JOB")],
        lambda: [drop("<NO_JOB", first=2)],
        lambda: [becomes("<NO_JOB", _NOOP)],
    ],
    "grab/none/2": [lambda: [becomes("<NO_JOB", _JOB)], lambda: [becomes("<NO_JOB", _ERROR)]],
    "grab/plain/1": [
        *[lambda number=number: [field_of("<JOB_ASSIGN", number, b"x")] for number in range(3)],
        lambda: [becomes("<JOB_ASSIGN", _NO_JOB)],
    ],
    "grab/unique/1": [
        *[lambda number=number: [field_of(_ASSIGN, number, b"x")] for number in range(4)],
        lambda: [field_of(_ASSIGN, 2, b"")],
    ],
    "grab/unique/2": [lambda: [field_of(_ASSIGN, 2, b"1234")]],
    "grab/all/1": [lambda: [field_of("<JOB_ASSIGN_ALL", 3, b"")]],
    "grab/all/2": [
        lambda: [field_of(_ASSIGN, 3, b"other")],
        lambda: [becomes(_ASSIGN, _NO_JOB)],
    ],
    "grab/all/3": [lambda: [field_of(_ASSIGN, 3, lambda data: b"reducer\0" + data)]],
    "grab/order/1": [
        lambda: [twice(_ASSIGN, last=1)],
        lambda: [drop("<NO_JOB", first=6)],
        lambda: [becomes(_ASSIGN, _NO_JOB, first=3)],
    ],
    "grab/order/2": [
        lambda: [drop("<NO_JOB", last=1), after("<ECHO_RES", _NO_JOB, first=1, last=1)]
    ],
    "grab/several/1": [
        lambda: [becomes(_ASSIGN, _NO_JOB, first=1)],
        lambda: [_swapped("<WORK_COMPLETE", 1, b"result of 1", b"result of 2")],
    ],
    "grab/once/1": [lambda: [becomes("<NO_JOB", _JOB)]],
    "grab/once/2": [lambda: [field_of(_ASSIGN, 0, b"H:1")], lambda: [becomes("<NO_JOB", _JOB)]],
    "grab/next/1": [lambda: [drop(">GRAB_JOB_UNIQ", first=1)]],
    "grab/priority/1": [
        lambda: [as_kind(">SUBMIT_JOB_HIGH_BG", ">SUBMIT_JOB_BG")],
        lambda: [as_kind(">SUBMIT_JOB_LOW_BG", ">SUBMIT_JOB_BG")],
    ],
    "grab/priority/2": [
        lambda: [_swapped(_ASSIGN, 3, b"h1", b"h2")],
        lambda: [_swapped(_ASSIGN, 3, b"l1", b"l2")],
    ],
    "grab/priority/3": [
        lambda: [as_kind(">SUBMIT_JOB_HIGH", ">SUBMIT_JOB")],
        lambda: [as_kind(">SUBMIT_JOB_LOW", ">SUBMIT_JOB")],
    ],
    "sleep/waiting/1": [lambda: [drop("<NOOP")]],
    "sleep/new/1": [lambda: [drop("<NOOP")], lambda: [becomes("<NOOP", _JOB)]],
    "sleep/new/2": [lambda: [drop("<NOOP", first=1)]],
    "sleep/new/3": [lambda: [drop("<NO_JOB")], lambda: [drop("<NOOP", first=1)]],
    "sleep/new/4": [lambda: [drop("<NOOP")]],
    "sleep/once/1": [lambda: [twice("<NOOP")], lambda: [drop("<NOOP")]],
    "sleep/awake/1": [
        lambda: [before("<ECHO_RES", _NOOP, first=1)],
        lambda: [before("<ECHO_RES", _NOOP, first=3)],
    ],
    "sleep/awake/2": [lambda: [before("<ECHO_RES", _NOOP, first=2)]],
    "sleep/function/1": [lambda: [_one_function()]],
    "sleep/function/2": [lambda: [drop(">CAN_DO", first=1)], lambda: [drop("<NOOP", first=1)]],
    "sleep/function/3": [lambda: [drop(">CANT_DO")]],
    "sleep/function/4": [lambda: [drop(">RESET_ABILITIES")]],
    "sleep/register/1": [lambda: [drop(">CAN_DO", first=1)]],
    "sleep/grab/1": [
        lambda: [becomes("<NOOP", _NOOP, _NO_JOB)],
        lambda: [drop("<NO_JOB")],
        lambda: [drop(_ASSIGN)],
    ],
    "sleep/holding/1": [lambda: [drop("<NOOP")], lambda: [becomes(_ASSIGN, _NO_JOB, first=1)]],
    "work/data/1": [
        lambda: [drop("<WORK_DATA")],
        lambda: [_until_nul("<WORK_DATA")],
        lambda: [as_kind("<WORK_DATA", "<WORK_COMPLETE")],
    ],
    "work/warning/1": [
        lambda: [drop("<WORK_WARNING")],
        lambda: [_until_nul("<WORK_WARNING")],
        lambda: [as_kind("<WORK_WARNING", "<WORK_DATA")],
    ],
    "work/status/1": [
        lambda: [drop("<WORK_STATUS")],
        lambda: [_swapped("<WORK_STATUS", 1, b"70", b"100")],
        lambda: [field_of("<WORK_STATUS", 2, b"1")],
    ],
    "work/order/1": [
        _late_data,
        lambda: [twice("<WORK_DATA", first=1, last=1)],
        lambda: [drop("<WORK_DATA", first=2)],
        lambda: [drop("<WORK_STATUS")],
    ],
    "work/clients/1": [lambda: [drop("<WORK_STATUS")], lambda: [drop("<WORK_COMPLETE")]],
    "work/clients/2": [lambda: [field_of(">SUBMIT_JOB", 1, b"conformance")]],
    "work/background/1": [lambda: [as_kind(">SUBMIT_JOB_BG", ">SUBMIT_JOB")]],
    "work/complete/1": [lambda: [_without_nul()], lambda: [field_of("<WORK_COMPLETE", 1, b"0")]],
    "work/complete/2": [lambda: [_until_nul("<WORK_COMPLETE")]],
    "work/complete/3": [lambda: [field_of("<WORK_COMPLETE", 1, lambda data: data[: 1 << 16])]],
    "work/fail/1": [
        lambda: [drop("<WORK_FAIL")],
        lambda: [twice("<WORK_FAIL")],
        lambda: [field_of("<WORK_FAIL", 0, lambda handle: handle + b"\0")],
    ],
    "work/fail/2": [lambda: [drop(">WORK_FAIL")]],
    "work/foreign/1": [lambda: [close(">WORK_DATA")], lambda: [drop("<WORK_COMPLETE")]],
    "work/unknown/1": [lambda: [close(">WORK_STATUS")], lambda: [becomes("<ERROR", _NO_JOB)]],
    "work/ended/1": [lambda: [twice("<WORK_COMPLETE")], lambda: [_both_ends()]],
    "work/ended/2": [lambda: [twice("<WORK_FAIL")]],
    "order/handles/1": [
        lambda: [_swapped("<WORK_COMPLETE", 1, b"result of 2", b"result of 0")],
        lambda: [field_of("<WORK_COMPLETE", 0, b"H:1")],
    ],
    "order/both/1": [lambda: [drop("<WORK_STATUS")], lambda: [drop("<WORK_COMPLETE")]],
    "exception/forward/1": [lambda: [_failure()], lambda: [_until_nul("<WORK_EXCEPTION")]],
    "exception/forward/2": [lambda: [_failure()]],
    "exception/fail/1": [
        lambda: [drop("<WORK_FAIL")],
        lambda: [twice("<WORK_FAIL")],
        lambda: [_exception()],
    ],
    "exception/fail/2": [
        lambda: [drop("<WORK_FAIL")],
        lambda: [_failure()],
        lambda: [_exception()],
    ],
    "option/exceptions/1": [
        lambda: [drop("<OPTION_RES")],
        lambda: [field_of("<OPTION_RES", 0, b"")],
        lambda: [becomes("<OPTION_RES", _ERROR)],
    ],
    "option/exceptions/2": [lambda: [_exception()], lambda: [drop("<WORK_COMPLETE")]],
    "option/unknown/1": [
        lambda: [becomes("<ERROR", packet("<OPTION_RES", b"conformance"))],
        lambda: [close("<ERROR")],
        lambda: [drop("<ERROR", first=2)],
    ],
    "requeue/close/1": [lambda: [drop("<NOOP")], lambda: [drop("<WORK_COMPLETE")]],
    "requeue/close/2": [
        *[lambda number=number: [_numbered(_ASSIGN, number)] for number in range(4)]
    ],
    "requeue/close/3": [lambda: [drop("<WORK_DATA", first=1)]],
    "requeue/close/4": [lambda: [drop("<NOOP")], lambda: [_up_to(1, _ASSIGN, _JOB)]],
    "requeue/reset/1": [lambda: [drop("<NOOP")], lambda: [_up_to(1, _ASSIGN, _NO_JOB)]],
    "requeue/several/1": [lambda: [_up_to(5, _ASSIGN, _NO_JOB)]],
    "requeue/several/2": [lambda: [drop(">WORK_COMPLETE", last=1)]],
    "requeue/priority/1": [lambda: [as_kind(">SUBMIT_JOB_HIGH_BG", ">SUBMIT_JOB_BG")]],
    "requeue/status/1": [lambda: [field_of("<STATUS_RES", 3, b"1")]],
    "requeue/late/1": [lambda: [field_of("<WORK_COMPLETE", 1, b"of the first run")]],
    "requeue/timeout/2": [lambda: [field_of(">CAN_DO_TIMEOUT", 1, b"1000")]],
    "id/set/1": [lambda: [drop(">SET_CLIENT_ID")]],
    "id/set/2": [lambda: [drop(">SET_CLIENT_ID", first=1)]],
    "id/answer/1": [
        lambda: [becomes(">SET_CLIENT_ID", packet(">ALL_YOURS"))],
        lambda: [close(">SET_CLIENT_ID")],
    ],
    "life/garbage/1": [lambda: [close("<JOB_CREATED")], lambda: [drop("<WORK_COMPLETE")]],
    "life/many/1": [lambda: [close(">WORK_COMPLETE")]],
    "life/many/2": [lambda: [_up_to(99, "<JOB_CREATED", b"")]],
    "life/unread/1": [lambda: [drop("<JOB_CREATED")]],
    "life/restart/1": [lambda: [_up_to(1, "<JOB_CREATED", b"")]],
}
