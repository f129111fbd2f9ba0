"""Lies that make cases for servers fail: large packets, and many of them."""

from __future__ import annotations

from typing import Final

from tests.conformance.lying import (
    Lie,
    Lies,
    becomes,
    drop,
    field_of,
    late,
    later,
    packet,
    stuck,
    twice,
)

_ASSIGN: Final = "<JOB_ASSIGN_UNIQ"
_NO_JOB: Final = packet("<NO_JOB")
_JOB: Final = packet(_ASSIGN, b"H:conformance:1", b"function", b"", b"data")
_PAGE: Final = 4096


def _cut(data: bytes) -> bytes:
    """Cut data off after 64 KiB."""
    return data[: 1 << 16]


def _reordered(data: bytes) -> bytes:
    """Swap the first two pages of data."""
    return data[_PAGE : 2 * _PAGE] + data[:_PAGE] + data[2 * _PAGE :]


def _repeated(data: bytes) -> bytes:
    """Replace everything after the first page by repetitions of it."""
    return (data[:_PAGE] * (len(data) // _PAGE + 1))[: len(data)]


def _shorter(name: str, size: int, *, of: str) -> Lie:
    """Drop the last byte of packets if their packet, or only its data, has this size."""

    def change(args: list[bytes]) -> bytes:
        whole = packet(name, *args)
        if len(whole if of == "packet" else args[-1]) == size:
            return packet(name, *args[:-1], args[-1][:-1])
        return whole

    return Lie(name, change)


def _sizes(name: str, *exponents: int) -> list[Lies]:
    """Return lies about packets and data of sizes around powers of two."""
    around = [(1 << exponent) + more for exponent in exponents for more in (-1, 0, 1)]
    return [_shorter(name, size, of=of) for size in around for of in ("packet", "data")]


def _all(name: str, *exponents: int) -> list[Lies]:
    """Return lies about the sizes and about the bytes of packets, whose data comes last."""
    spoils = [field_of(name, -1, spoil) for spoil in (_reordered, _repeated)]
    return [*_sizes(name, *exponents), *spoils, twice(name, first=2, last=1)]


#: Lies by case. Each lie makes the case fail on its own.
LIES: Final[dict[str, list[Lies]]] = {
    "size/echo/1": _all("<ECHO_RES", 12, 14, 16),
    "size/echo/2": [_shorter("<ECHO_RES", 1 << 21, of="packet")],
    "size/assign/1": [*_all(_ASSIGN, 12, 16), *_sizes(">SUBMIT_JOB", 13, 15)],
    "size/assign/2": [*_all("<JOB_ASSIGN", 12, 16), *_sizes(">SUBMIT_JOB", 14)],
    "size/assign/3": [_shorter(_ASSIGN, 1 << 21, of="packet")],
    "size/data/1": _all("<WORK_DATA", 12, 14, 16),
    "size/data/2": [_shorter("<WORK_DATA", 1 << 21, of="data")],
    "size/data/3": [
        lambda: late("<WORK_DATA", "<WORK_DATA"),
        twice("<WORK_DATA", first=150, last=1),
        drop("<WORK_DATA", first=199),
        drop("<WORK_DATA", last=1),
        lambda: [stuck("<WORK_DATA", 1)],
    ],
    "size/warning/1": _all("<WORK_WARNING", 12, 14, 16),
    "size/warning/2": [_shorter("<WORK_WARNING", 1 << 21, of="data")],
    "size/complete/1": _all("<WORK_COMPLETE", 12, 14, 16),
    "size/complete/2": [_shorter("<WORK_COMPLETE", 1 << 21, of="data")],
    "size/exception/1": _all("<WORK_EXCEPTION", 12, 14, 16),
    "size/exception/2": [_shorter("<WORK_EXCEPTION", 1 << 21, of="data")],
    "size/huge/1": [_shorter("<WORK_COMPLETE", 1 << 24, of="data")],
    "size/last/1": [
        lambda: late(">WORK_COMPLETE", ">ECHO_REQ"),
        field_of("<WORK_COMPLETE", 1, _cut),
        twice("<WORK_COMPLETE"),
    ],
    "size/last/2": [lambda: late(">WORK_FAIL", ">ECHO_REQ"), twice("<WORK_FAIL")],
    "size/last/3": [
        lambda: late(">WORK_EXCEPTION", ">ECHO_REQ"),
        field_of("<WORK_EXCEPTION", 1, _cut),
        twice("<WORK_EXCEPTION"),
    ],
    "size/two/1": [
        lambda: [stuck("<WORK_COMPLETE", 1)],
        later(field_of("<WORK_COMPLETE", 1, _cut)),
        later(field_of("<WORK_COMPLETE", 1, _repeated)),
        later(drop("<WORK_COMPLETE")),
        twice("<WORK_COMPLETE"),
    ],
    "size/two/2": [
        lambda: [stuck("<WORK_DATA", 1)],
        lambda: late("<WORK_DATA", "<WORK_DATA"),
        later(field_of("<WORK_DATA", 1, _cut)),
        drop("<WORK_DATA", first=1),
        twice("<WORK_DATA", first=1),
    ],
    "size/requeue/1": [
        later(field_of(_ASSIGN, 3, _cut)),
        later(field_of(_ASSIGN, 3, _reordered)),
        later(becomes(_ASSIGN, _NO_JOB)),
        field_of("<WORK_COMPLETE", 1, _cut),
    ],
    "size/jobs/1": [
        becomes(_ASSIGN, _NO_JOB, first=24),
        becomes("<NO_JOB", _JOB),
        lambda: [stuck(_ASSIGN, 0)],
        lambda: [stuck(_ASSIGN, 3)],
        later(twice(_ASSIGN, first=24)),
    ],
    "size/jobs/2": [becomes(_ASSIGN, _NO_JOB, first=2499), twice(_ASSIGN, first=2499)],
    "size/jobs/3": [
        lambda: [stuck(_ASSIGN, 3)],
        lambda: [stuck(_ASSIGN, 0)],
        lambda: [stuck(">SUBMIT_JOB_BG", 2)],
        lambda: late(">SUBMIT_JOB_HIGH", ">SUBMIT_JOB_HIGH"),
        field_of(">SUBMIT_JOB_HIGH", 2, lambda data: data[:-1] + b"\0"),
    ],
    "size/jobs/4": [
        lambda: [stuck(">SUBMIT_JOB_LOW", 2)],
        lambda: [stuck(">SUBMIT_JOB_LOW_BG", 2)],
        lambda: [stuck(_ASSIGN, 3)],
        field_of(">SUBMIT_JOB_HIGH_BG", 2, lambda data: data[1:] + data[:1]),
    ],
    "size/functions/1": [
        drop(">CAN_DO", first=299),
        lambda: [stuck(_ASSIGN, 1)],
        lambda: [stuck(_ASSIGN, 3)],
        twice(_ASSIGN, first=299),
    ],
    "size/clients/1": [
        later(drop("<WORK_COMPLETE"), 99),
        later(twice("<WORK_COMPLETE"), 99),
        later(field_of("<WORK_COMPLETE", 1, b"other"), 50),
        later(field_of("<WORK_COMPLETE", 0, b"H:1"), 50),
    ],
    "size/status/1": [
        lambda: [stuck("<STATUS_RES", 3)],
        lambda: [stuck("<STATUS_RES", 4)],
        lambda: late("<STATUS_RES", "<STATUS_RES"),
        drop(">WORK_STATUS", first=11),
        drop(">WORK_STATUS", last=1),
    ],
}
