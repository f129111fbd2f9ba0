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
    number,
    parse,
)


def test_packets_are_found_by_number_and_name() -> None:
    """tests/test_protocol_page.py compares the table with the documentation."""
    assert [p.number for p in PACKETS] == [*range(1, 5), *range(6, LAST_NUMBER + 1)]
    assert {BY_NUMBER[p.number] for p in PACKETS} == {BY_NAME[p.name] for p in PACKETS}
    assert len(BY_NUMBER) == len(BY_NAME) == 41


def test_flags_of_packets_match_protocol() -> None:
    submits = [p.name for p in PACKETS if p.is_submit]
    assert submits == [p.name for p in PACKETS if p.name.startswith("SUBMIT_")]
    ignorable = [p.name for p in PACKETS if p.ignorable]
    assert ignorable == ["ECHO_REQ", "OPTION_REQ", "GET_STATUS_UNIQUE"]


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
