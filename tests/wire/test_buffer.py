"""Tests of ReceiveBuffer, which returns received bytes in contiguous pieces."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gearman_proto.wire.buffer import ReceiveBuffer
from tests.profiles import examples


def test_buffer_chunk_of_whole_packets_is_not_copied() -> None:
    buffer = ReceiveBuffer()
    chunk = b"one two"
    buffer.feed(chunk)
    assert buffer.has(3)
    assert buffer.take(3) == b"one"
    assert buffer.has(4)
    assert buffer.data is chunk


def test_buffer_mutable_chunk_is_copied() -> None:
    buffer = ReceiveBuffer()
    for fed in (bytearray(b"abc"), memoryview(bytearray(b"def"))):
        buffer.feed(fed)  # type: ignore[arg-type]
        fed[0] = 0x78
    assert buffer.has(6)
    assert buffer.take(6) == b"abcdef"


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.text(alphabet="abcd\n", max_size=4).map(str.encode)),
        st.tuples(st.just("has"), st.integers(0, 12)),
        st.tuples(st.just("take"), st.integers(0, 5)),
        st.tuples(st.just("line"), st.none()),
        st.tuples(st.just("take line"), st.none()),
        st.tuples(st.just("clear"), st.none()),
    ),
    max_size=40,
)


@given(OPERATIONS)
@examples(3)
def test_buffer_any_operations_match_bytes(operations: list[tuple[str, Any]]) -> None:
    buffer = ReceiveBuffer()
    model = b""
    for name, value in operations:
        if name == "feed":
            buffer.feed(value)
            model += value
        elif name == "has":
            assert buffer.has(value) == (len(model) >= value)
            if len(model) >= value:
                assert buffer.data[buffer.start : buffer.start + value] == model[:value]
        elif name == "take":
            if buffer.has(value):
                assert buffer.take(value) == model[:value]
                model = model[value:]
        elif name == "line":
            assert buffer.line_size() == model.find(b"\n") + 1
        elif name == "take line":
            size = buffer.line_size()
            if size:
                assert buffer.has(size)
                assert buffer.take(size) == model[:size]
                model = model[size:]
        else:
            buffer.clear()
            model = b""
        assert len(buffer) == len(model)
    size = len(model)
    assert buffer.has(size)
    assert buffer.take(size) == model
