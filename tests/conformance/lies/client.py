"""Lies that make each case for clients fail.

The suite is the server, so a lie about the server's packets stands for an error of the client.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from tests.conformance.lying import (
    CLOSE,
    MANY,
    Lie,
    Lies,
    after,
    as_kind,
    becomes,
    close,
    drop,
    field_of,
    packet,
    stale,
    twice,
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


def _unique_is(make: Callable[[bytes], bytes]) -> Lie:
    """Make the client derive its uniques from this part of the payload."""

    def change(args: list[bytes]) -> bytes:
        digest = hashlib.sha256(make(args[2])).hexdigest()[:32].encode()
        return packet(">SUBMIT_JOB", args[0], digest, args[2])

    return Lie(">SUBMIT_JOB", change)


#: Make the client report an empty result when its connection ends.
_CLAIMS_SUCCESS: Final = becomes("<END", packet("<WORK_COMPLETE", _HANDLE, b""))
#: Make the client miss the end of its connection.
_HANGS: Final = drop("<END")
#: Make the client report an accepted job and an empty result when its connection ends.
_CLAIMS_ALL: Final = becomes(
    "<END", packet("<JOB_CREATED", _HANDLE), packet("<WORK_COMPLETE", _HANDLE, b"")
)
#: Make the client treat two coalesced jobs as two.
_SECOND_IS_OTHER: Final = field_of("<JOB_CREATED", 0, b"H:other", first=1, last=1)
#: Make the client mistake an update for the result.
_DATA_ENDS: Final = as_kind("<WORK_DATA", "<WORK_COMPLETE")
_STATUS_ENDS: Final = Lie(
    "<WORK_STATUS",
    lambda args: (
        packet("<WORK_COMPLETE", args[0], b"part")
        if args[1] == args[2]
        else packet("<WORK_STATUS", *args)
    ),
)
#: Lies by case. Each lie makes the case fail on its own.
LIES: Final[dict[str, list[Lies]]] = {
    "submit/bytes/1": [
        field_of(">SUBMIT_JOB", 0, b"other"),
        field_of(">SUBMIT_JOB", 2, lambda data: data.strip()),
        field_of(">SUBMIT_JOB", 2, lambda data: data.replace(b"\r\n", b"\n")),
    ],
    "submit/empty/1": [field_of(">SUBMIT_JOB", 2, b"\0"), drop(">SUBMIT_JOB")],
    "submit/large/1": [field_of(">SUBMIT_JOB", 2, lambda data: data[:65536])],
    "submit/unique/1": [field_of(">SUBMIT_JOB", 1, b"u" * 64)],
    "submit/unique/3": [field_of(">SUBMIT_JOB", 1, b"same")],
    "submit/unique/4": [
        field_of(">SUBMIT_JOB", 1, b"same"),
        # The unique depends on a part of the payload, or on its length.
        _unique_is(lambda data: data[:255]),
        _unique_is(lambda data: data[-255:]),
        _unique_is(lambda data: data[:500] + data[-500:]),
        _unique_is(lambda data: b"%d" % sum(data)),
        _unique_is(lambda data: b"%d" % len(data)),
        _unique_is(bytes.lower),
        _unique_is(bytes.strip),
    ],
    "submit/size/1": [field_of(">SUBMIT_JOB", 2, lambda data: data[:65536])],
    "submit/large/2": [field_of(">SUBMIT_JOB", 2, lambda data: data[:65535])],
    "submit/large/3": [field_of(">SUBMIT_JOB", 2, lambda data: data[:131070])],
    "submit/once/2": [twice(">SUBMIT_JOB"), _result_is(b"other")],
    "submit/once/3": [twice(">SUBMIT_JOB"), drop("<WORK_COMPLETE")],
    "submit/once/4": [twice(">SUBMIT_JOB")],
    "submit/foreground/1": [as_kind(">SUBMIT_JOB", ">SUBMIT_JOB_BG")],
    "submit/once/1": [twice(">SUBMIT_JOB")],
    "submit/binary/1": [
        after(">SUBMIT_JOB", b"version\r\n"),
        as_kind(">SUBMIT_JOB", "<SUBMIT_JOB"),
        after(">SUBMIT_JOB", b"\0abcdefghijk"),
    ],
    "result/plain/1": [_result_is(b"other"), as_kind("<JOB_CREATED", "<ERROR")],
    "result/empty/1": [_result_is(b"None"), drop("<WORK_COMPLETE")],
    "result/bytes/1": [
        _result_is(lambda data: data.rstrip(b"\0")),
        _result_is(lambda data: data.decode(errors="replace").encode()),
    ],
    "result/packet/1": [_result_is(b"other")],
    "result/large/1": [_result_is(lambda data: data[:65536])],
    "result/large/2": [_result_is(lambda data: data[: 1 << 20])],
    "result/size/1": [_result_is(lambda data: data[:32768])],
    "result/size/2": [_result_is(lambda data: data[:65535])],
    "result/size/3": [_result_is(lambda data: data[:65536])],
    "result/size/4": [_result_is(lambda data: data[:1000] + b"x" + data[1001:])],
    "result/size/5": [_result_is(lambda data: data[:-1])],
    "result/size/6": [
        Lie("<WORK_DATA", lambda args: CLOSE if len(args[1]) == 65536 else packet("<NOOP"))
    ],
    "result/data/1": [as_kind("<WORK_DATA", "<WORK_COMPLETE")],
    "result/status/1": [as_kind("<WORK_STATUS", "<WORK_COMPLETE")],
    "result/status/3": [as_kind("<WORK_STATUS", "<WORK_FAIL")],
    "result/status/4": [as_kind("<WORK_STATUS", "<WORK_FAIL"), close("<WORK_STATUS")],
    "result/warning/1": [as_kind("<WORK_WARNING", "<WORK_COMPLETE")],
    "result/handle/1": [_ends_of(lambda handle: handle[:-1])],
    "result/handle/2": [_ends_of(lambda handle: handle.lower())],
    "wire/pieces/1": [_result_is(lambda data: data[:1])],
    "wire/pieces/2": [(as_kind("<WORK_STATUS", "<ERROR"), drop("<WORK_COMPLETE"))],
    "wire/pieces/3": [_result_is(lambda data: data[:997])],
    "wire/joined/1": [(drop("<WORK_STATUS"), drop("<WORK_COMPLETE"))],
    "fail/plain/1": [as_kind("<WORK_FAIL", "<WORK_COMPLETE"), drop("<WORK_FAIL")],
    "fail/data/1": [as_kind("<WORK_FAIL", "<WORK_COMPLETE")],
    "fail/nul/1": [drop("<WORK_FAIL")],
    "fail/magic/1": [drop("<WORK_FAIL")],
    "fail/exception/1": [drop("<WORK_EXCEPTION"), as_kind("<WORK_EXCEPTION", "<WORK_COMPLETE")],
    "fail/exception/2": [
        (drop("<WORK_EXCEPTION"), drop("<WORK_FAIL")),
        as_kind("<WORK_EXCEPTION", "<WORK_COMPLETE"),
    ],
    "fail/exception/4": [
        drop("<WORK_EXCEPTION"),
        as_kind("<WORK_EXCEPTION", "<WORK_COMPLETE"),
    ],
    "fail/exception/6": [
        drop("<WORK_EXCEPTION"),
        as_kind("<WORK_EXCEPTION", "<WORK_COMPLETE"),
    ],
    "fail/exception/5": [
        drop("<WORK_EXCEPTION"),
        as_kind("<WORK_EXCEPTION", "<WORK_COMPLETE"),
    ],
    "fail/data/2": [as_kind("<WORK_FAIL", "<WORK_COMPLETE"), _STATUS_ENDS],
    "fail/error/1": [drop("<ERROR")],
    "fail/error/2": [drop("<ERROR")],
    "order/backwards/1": [
        # The client takes results in the order of its submits.
        _ends_of(lambda handle: handle.translate(bytes.maketrans(b"13", b"31")))
    ],
    "order/early/1": [drop("<WORK_COMPLETE", last=1)],
    "order/error/1": [drop("<ERROR")],
    "order/fail/1": [drop("<WORK_FAIL"), as_kind("<WORK_FAIL", "<WORK_COMPLETE")],
    "order/fail/2": [drop("<WORK_FAIL"), as_kind("<WORK_FAIL", "<WORK_COMPLETE")],
    "order/fail/3": [drop("<WORK_FAIL"), as_kind("<WORK_FAIL", "<WORK_COMPLETE")],
    "order/many/1": [
        drop("<WORK_COMPLETE", first=127),
        lambda: [stale("<WORK_COMPLETE", 1)],
        _ends_of(lambda handle: handle[:-1] + b"0"),
    ],
    "order/large/1": [
        lambda: [stale("<WORK_COMPLETE", 1)],
        _result_is(lambda data: data[:65536]),
    ],
    "order/size/1": [_result_is(lambda data: data[:65536])],
    "order/size/2": [_result_is(lambda data: data[: 1 << 20])],
    "order/alike/1": [_ends_of(_HANDLE)],
    "order/alike/2": [_ends_of(_HANDLE)],
    "order/same/1": [_SECOND_IS_OTHER],
    "order/same/2": [_SECOND_IS_OTHER],
    "order/mixed/1": [as_kind("<WORK_WARNING", "<WORK_COMPLETE")],
    "order/twice/1": [drop("<WORK_FAIL")],
    "order/twice/2": [_result_is(b"other", last=1), drop("<WORK_COMPLETE")],
    "order/foreign/1": [_ends_of(_HANDLE, last=1)],
    "life/refused/1": [_HANGS, _CLAIMS_ALL],
    "life/close/1": [_HANGS, _CLAIMS_ALL],
    "life/close/2": [_HANGS, _CLAIMS_SUCCESS],
    "life/reset/1": [_HANGS, _CLAIMS_ALL],
    "life/reset/2": [_HANGS, _CLAIMS_SUCCESS],
    # The client takes an incomplete result for the whole.
    "life/half/1": [becomes("<END", b"?????"), _HANGS],
    "life/half/2": [_HANGS],
    "life/close/3": [_HANGS, _DATA_ENDS],
    "life/close/4": [_HANGS, _STATUS_ENDS],
    "life/close/5": [_HANGS, _STATUS_ENDS, _DATA_ENDS],
    "life/close/6": [_HANGS, becomes("<END", packet("<WORK_COMPLETE", b"H:conformance:2", b""))],
    "life/reset/3": [_HANGS, _STATUS_ENDS],
    "life/half/3": [becomes("<END", b"?"), _HANGS],
    "life/half/4": [becomes("<END", b"?" * 10), _HANGS],
    "life/last/1": [drop("<WORK_COMPLETE"), _result_is(b"")],
    "life/garbage/1": [drop("<TEXT")],
    "life/garbage/2": [drop("<TEXT")],
}
