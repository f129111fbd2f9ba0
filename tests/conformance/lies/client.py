"""Lies that make each case for clients fail.

The suite is the server, so a lie about the server's packets stands for an error of the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.conformance.lying import (
    MANY,
    Lie,
    after,
    becomes,
    close,
    drop,
    field_of,
    packet,
    twice,
    typed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_HANDLE: Final = b"H:conformance:1"


def _result_is(data: bytes | Callable[[bytes], bytes], *, first: int = 0, last: int = MANY) -> Lie:
    """Make the client report another result."""
    return field_of("<WORK_COMPLETE", 1, data, first=first, last=last)


def _ends_of(handle: bytes | Callable[[bytes], bytes], *, first: int = 0, last: int = MANY) -> Lie:
    """Make the client mistake the end of one job for that of another."""
    return field_of("<WORK_COMPLETE", 0, handle, first=first, last=last)


def _claims_success() -> Lie:
    """Make the client report an empty result when its connection ends."""
    return becomes("<END", packet("<WORK_COMPLETE", _HANDLE, b""))


def _hangs() -> Lie:
    """Make the client miss the end of its connection."""
    return drop("<END")


def _claims_all() -> Lie:
    """Make the client report an accepted job and an empty result when its connection ends."""
    created = packet("<JOB_CREATED", _HANDLE)
    return becomes("<END", created, packet("<WORK_COMPLETE", _HANDLE, b""))


def _second_is_other() -> Lie:
    """Make the client treat two coalesced jobs as two."""
    return field_of("<JOB_CREATED", 0, b"H:other", first=1, last=1)


#: Lies by case. Each lie makes the case fail on its own.
LIES: Final[dict[str, list[Callable[[], list[Lie]]]]] = {
    "submit/bytes/1": [
        lambda: [field_of(">SUBMIT_JOB", 0, b"other")],
        lambda: [field_of(">SUBMIT_JOB", 2, lambda data: data.strip())],
        lambda: [field_of(">SUBMIT_JOB", 2, lambda data: data.replace(b"\r\n", b"\n"))],
    ],
    "submit/empty/1": [lambda: [field_of(">SUBMIT_JOB", 2, b"\0")], lambda: [drop(">SUBMIT_JOB")]],
    "submit/large/1": [lambda: [field_of(">SUBMIT_JOB", 2, lambda data: data[:65536])]],
    "submit/unique/1": [lambda: [field_of(">SUBMIT_JOB", 1, b"u" * 64)]],
    "submit/unique/3": [lambda: [field_of(">SUBMIT_JOB", 1, b"same")]],
    "submit/foreground/1": [lambda: [typed(">SUBMIT_JOB", ">SUBMIT_JOB_BG")]],
    "submit/once/1": [lambda: [twice(">SUBMIT_JOB")]],
    "submit/binary/1": [
        lambda: [after(">SUBMIT_JOB", b"version\r\n")],
        lambda: [typed(">SUBMIT_JOB", "<SUBMIT_JOB")],
        lambda: [after(">SUBMIT_JOB", b"\0abcdefghijk")],
    ],
    "result/plain/1": [lambda: [_result_is(b"other")], lambda: [typed("<JOB_CREATED", "<ERROR")]],
    "result/empty/1": [lambda: [_result_is(b"None")], lambda: [drop("<WORK_COMPLETE")]],
    "result/bytes/1": [
        lambda: [_result_is(lambda data: data.rstrip(b"\0"))],
        lambda: [_result_is(lambda data: data.decode(errors="replace").encode())],
    ],
    "result/packet/1": [lambda: [_result_is(b"other")]],
    "result/large/1": [lambda: [_result_is(lambda data: data[:65536])]],
    "result/data/1": [lambda: [typed("<WORK_DATA", "<WORK_COMPLETE")]],
    "result/status/1": [lambda: [typed("<WORK_STATUS", "<WORK_COMPLETE")]],
    "result/status/3": [lambda: [typed("<WORK_STATUS", "<WORK_FAIL")]],
    "result/status/4": [
        lambda: [typed("<WORK_STATUS", "<WORK_FAIL")],
        lambda: [close("<WORK_STATUS")],
    ],
    "result/warning/1": [lambda: [typed("<WORK_WARNING", "<WORK_COMPLETE")]],
    "result/handle/1": [lambda: [_ends_of(lambda handle: handle[:-1])]],
    "result/handle/2": [lambda: [_ends_of(lambda handle: handle.lower())]],
    "wire/pieces/1": [lambda: [_result_is(lambda data: data[:1])]],
    "wire/pieces/2": [lambda: [typed("<WORK_STATUS", "<ERROR"), drop("<WORK_COMPLETE")]],
    "wire/joined/1": [lambda: [drop("<WORK_STATUS"), drop("<WORK_COMPLETE")]],
    "fail/plain/1": [lambda: [typed("<WORK_FAIL", "<WORK_COMPLETE")], lambda: [drop("<WORK_FAIL")]],
    "fail/data/1": [lambda: [typed("<WORK_FAIL", "<WORK_COMPLETE")]],
    "fail/nul/1": [lambda: [drop("<WORK_FAIL")]],
    "fail/magic/1": [lambda: [drop("<WORK_FAIL")]],
    "fail/exception/1": [
        lambda: [drop("<WORK_EXCEPTION")],
        lambda: [typed("<WORK_EXCEPTION", "<WORK_COMPLETE")],
    ],
    "fail/exception/2": [
        lambda: [drop("<WORK_EXCEPTION"), drop("<WORK_FAIL")],
        lambda: [typed("<WORK_EXCEPTION", "<WORK_COMPLETE")],
    ],
    "fail/error/1": [lambda: [drop("<ERROR")]],
    "fail/error/2": [lambda: [drop("<ERROR")]],
    "order/backwards/1": [
        # The client takes results in the order of its submits.
        lambda: [_ends_of(lambda handle: handle.translate(bytes.maketrans(b"13", b"31")))]
    ],
    "order/early/1": [lambda: [drop("<WORK_COMPLETE", last=1)]],
    "order/error/1": [lambda: [drop("<ERROR")]],
    "order/fail/1": [
        lambda: [drop("<WORK_FAIL")],
        lambda: [typed("<WORK_FAIL", "<WORK_COMPLETE")],
    ],
    "order/alike/1": [lambda: [_ends_of(_HANDLE)]],
    "order/alike/2": [lambda: [_ends_of(_HANDLE)]],
    "order/same/1": [lambda: [_second_is_other()]],
    "order/same/2": [lambda: [_second_is_other()]],
    "order/mixed/1": [lambda: [typed("<WORK_WARNING", "<WORK_COMPLETE")]],
    "order/twice/1": [lambda: [drop("<WORK_FAIL")]],
    "order/twice/2": [lambda: [_result_is(b"other", last=1)], lambda: [drop("<WORK_COMPLETE")]],
    "order/foreign/1": [lambda: [_ends_of(_HANDLE, last=1)]],
    "life/refused/1": [lambda: [_hangs()], lambda: [_claims_all()]],
    "life/close/1": [lambda: [_hangs()], lambda: [_claims_all()]],
    "life/close/2": [lambda: [_hangs()], lambda: [_claims_success()]],
    "life/reset/1": [lambda: [_hangs()], lambda: [_claims_all()]],
    "life/reset/2": [lambda: [_hangs()], lambda: [_claims_success()]],
    # The client takes an incomplete result for the whole.
    "life/half/1": [lambda: [becomes("<END", b"?????")], lambda: [_hangs()]],
    "life/half/2": [lambda: [_hangs()]],
    "life/last/1": [lambda: [drop("<WORK_COMPLETE")], lambda: [_result_is(b"")]],
    "life/garbage/1": [lambda: [drop("<TEXT")]],
    "life/garbage/2": [lambda: [drop("<TEXT")]],
}
