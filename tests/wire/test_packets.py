"""Tests of the packets: the table, the classes and parsing."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.errors import RemoteProtocolError
from gearman_proto.wire.packets import (
    BY_NAME,
    BY_NUMBER,
    EVENT_CLASSES,
    LAST_NUMBER,
    PACKETS,
    PacketType,
    Role,
    number,
    parse,
)

C, W, S = Role.CLIENT, Role.WORKER, Role.SERVER

# The list of packets in Gearman's document: name, sender, receiver, number of NULs in the body, and
# True if a payload follows the last of them.
EXPECTED = {
    1: ("CAN_DO", W, S, 0, False),
    2: ("CANT_DO", W, S, 0, False),
    3: ("RESET_ABILITIES", W, S, 0, False),
    4: ("PRE_SLEEP", W, S, 0, False),
    6: ("NOOP", S, W, 0, False),
    7: ("SUBMIT_JOB", C, S, 2, True),
    8: ("JOB_CREATED", S, C, 0, False),
    9: ("GRAB_JOB", W, S, 0, False),
    10: ("NO_JOB", S, W, 0, False),
    11: ("JOB_ASSIGN", S, W, 2, True),
    12: ("WORK_STATUS", W | S, S | C, 2, False),
    13: ("WORK_COMPLETE", W | S, S | C, 1, True),
    14: ("WORK_FAIL", W | S, S | C, 1, True),
    15: ("GET_STATUS", C, S, 0, False),
    16: ("ECHO_REQ", C | W, S, 0, True),
    17: ("ECHO_RES", S, C | W, 0, True),
    18: ("SUBMIT_JOB_BG", C, S, 2, True),
    19: ("ERROR", S, C | W, 1, True),
    20: ("STATUS_RES", S, C, 4, False),
    21: ("SUBMIT_JOB_HIGH", C, S, 2, True),
    22: ("SET_CLIENT_ID", C | W, S, 0, False),
    23: ("CAN_DO_TIMEOUT", W, S, 1, False),
    24: ("ALL_YOURS", W, S, 0, False),
    25: ("WORK_EXCEPTION", W | S, S | C, 1, True),
    26: ("OPTION_REQ", C | W, S, 0, False),
    27: ("OPTION_RES", S, C | W, 0, False),
    28: ("WORK_DATA", W | S, S | C, 1, True),
    29: ("WORK_WARNING", W | S, S | C, 1, True),
    30: ("GRAB_JOB_UNIQ", W, S, 0, False),
    31: ("JOB_ASSIGN_UNIQ", S, W, 3, True),
    32: ("SUBMIT_JOB_HIGH_BG", C, S, 2, True),
    33: ("SUBMIT_JOB_LOW", C, S, 2, True),
    34: ("SUBMIT_JOB_LOW_BG", C, S, 2, True),
    35: ("SUBMIT_JOB_SCHED", C, S, 7, True),
    36: ("SUBMIT_JOB_EPOCH", C, S, 3, True),
    37: ("SUBMIT_REDUCE_JOB", C, S, 4, True),
    38: ("SUBMIT_REDUCE_JOB_BACKGROUND", C, S, 4, True),
    39: ("GRAB_JOB_ALL", W, S, 0, False),
    40: ("JOB_ASSIGN_ALL", S, W, 4, True),
    41: ("GET_STATUS_UNIQUE", C, S, 0, False),
    42: ("STATUS_RES_UNIQUE", S, C, 5, False),
}


def test_table_matches_protocol() -> None:
    assert {
        p.number: (p.name, p.sender, p.receiver, max(len(p.args) - 1, 0), p.opaque) for p in PACKETS
    } == EXPECTED
    assert [p.number for p in PACKETS] == sorted(EXPECTED)
    assert LAST_NUMBER == 42
    assert {BY_NUMBER[p.number] for p in PACKETS} == {BY_NAME[p.name] for p in PACKETS}
    assert len(BY_NUMBER) == len(BY_NAME) == 41


def test_answers_match_protocol() -> None:
    answers = {p.name: p.answers for p in PACKETS if p.answers and not p.is_submit}
    assert answers == {
        "GRAB_JOB": ("NO_JOB", "JOB_ASSIGN"),
        "GRAB_JOB_UNIQ": ("NO_JOB", "JOB_ASSIGN_UNIQ"),
        "GRAB_JOB_ALL": ("NO_JOB", "JOB_ASSIGN_ALL", "JOB_ASSIGN_UNIQ"),
        "GET_STATUS": ("STATUS_RES",),
        "GET_STATUS_UNIQUE": ("STATUS_RES_UNIQUE",),
        "ECHO_REQ": ("ECHO_RES",),
        "OPTION_REQ": ("OPTION_RES",),
    }
    submits = [p.name for p in PACKETS if p.is_submit]
    assert submits == [p.name for p in PACKETS if p.name.startswith("SUBMIT_")]
    ignorable = [p.name for p in PACKETS if p.ignorable]
    assert ignorable == ["ECHO_REQ", "OPTION_REQ", "GET_STATUS_UNIQUE"]
    assert [p.name for p in PACKETS if p.optional] == ["WORK_FAIL"]


def test_classes_have_slots_and_answers_have_a_token() -> None:
    answers = {name for packet in PACKETS for name in packet.answers} | {"ERROR"}
    for kind in EVENT_CLASSES.values():
        args: Any = kind.packet.args
        event = kind(*args)
        assert hasattr(event, "answers") == (kind.packet.name in answers)
        assert kind.arguments(event) == args
        assert not hasattr(event, "__dict__")


@pytest.mark.parametrize("packet", [p for p in PACKETS if len(p.args) > 1], ids=lambda p: p.name)
def test_parse_body_with_missing_nuls_is_refused(packet: PacketType) -> None:
    for count in range(1, len(packet.args)):
        body = b"\0".join([b"xy"] * count)
        if packet.optional:
            assert parse(packet, body, 0, len(body)) == [body]
            continue
        with pytest.raises(RemoteProtocolError) as info:
            # The NULs after the body belong to the next packet.
            parse(packet, body + b"\0" * 9, 0, len(body))
        assert str(info.value) == (
            f"{packet.name} has {count - 1} NULs in its body of {len(body)} bytes, "
            f"{len(packet.args) - 1} expected"
        )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"0", 0),
        (b"42", 42),
        (b"042", 42),
        (b" \t7", 7),
        (b"+7", 7),
        (b"-1", -1),
        (b"0.5", 0),
        (b"12abc", 12),
        (b"", 0),
        (b"abc", 0),
        (b"- 1", 0),
        (b"\n1", 0),
        ("\u0663".encode(), 0),
        (b"9223372036854775807", 2**63 - 1),
        (b"1" * 5000, int("1" * 19)),
    ],
)
def test_number_reads_leading_digits(text: bytes, value: int) -> None:
    assert number(text) == value
