"""Tests of the fuzz target `connection`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from fuzz import Failure, mutating
from fuzz import connection as fuzz
from gearman_proto.wire.connection import Connection
from gearman_proto.wire.packets import CanDo, EchoReq, Event, Role

if TYPE_CHECKING:
    from gearman_proto.wire.buffer import ReceiveBuffer


def test_seeds_yield_many_events() -> None:
    seeds = mutating.load("connection")
    # Otherwise the seeds would contain no answers that fit their requests.
    assert sum(fuzz.check(data) for data in seeds) > 8 * len(seeds) > 300


@pytest.mark.unmeasured
def test_generated_inputs_hold_invariant() -> None:
    rng = random.Random(1)
    seeds = mutating.load("connection")
    events = sum(fuzz.check(fuzz.generate(rng, seeds)) for _ in range(600))
    assert events > 3000


def test_generate_same_seed_makes_same_inputs() -> None:
    seeds = mutating.load("connection")
    first, second = random.Random(2), random.Random(2)
    for _ in range(50):
        assert fuzz.generate(first, seeds) == fuzz.generate(second, seeds)


ECHO = b"\0REQ\0\0\0\x10\0\0\0\x02ab"


def test_check_changed_packet_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EchoReq, "arguments", staticmethod(lambda event: (event.data[::-1],)))
    with pytest.raises(Failure, match="became"):
        fuzz.check(ECHO)


def test_check_chunk_dependent_result_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def receive_data(self: Connection, data: bytes) -> None:
        buffer: ReceiveBuffer = self._buffer
        buffer.feed(data.upper() if len(data) == 1 else data)

    monkeypatch.setattr(Connection, "receive_data", receive_data)
    with pytest.raises(Failure, match="byte by byte"):
        fuzz.check(ECHO)


def test_check_other_exception_propagates(monkeypatch: pytest.MonkeyPatch) -> None:
    def next_event(self: Connection) -> Event:
        raise IndexError

    monkeypatch.setattr(Connection, "next_event", next_event)
    with pytest.raises(IndexError):
        fuzz.check(ECHO)


def test_check_lost_bytes_fail() -> None:
    with pytest.raises(Failure, match="became"):
        fuzz.check_bytes(Role.SERVER, ECHO, [EchoReq(b"xy")])
    assert fuzz.check_bytes(Role.SERVER, ECHO, [EchoReq(b"ab")]) == len(ECHO)
    with pytest.raises(Failure, match="became"):
        fuzz.check_bytes(Role.SERVER, ECHO, [CanDo(b"ab")])
