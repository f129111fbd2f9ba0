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


def test_shrink_parsed_bytes_are_released() -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"a" * 1000 + b"rest")
    buffer.take(1000)
    buffer.feed(b" and tail")
    assert not buffer.shrink()
    assert (buffer.data, buffer.start) == (b"rest", 0)
    assert buffer.take(4) == b"rest"
    assert not buffer.shrink()
    assert buffer.data == b""
    assert buffer.has(9)
    assert buffer.take(9) == b" and tail"
    assert buffer.shrink()


@given(st.binary(max_size=12), st.integers(1, 20), st.lists(st.binary(max_size=9), max_size=9))
@examples(3)
def test_collect_any_chunks_return_payload(begun: bytes, size: int, chunks: list[bytes]) -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"before" + begun[:size])
    buffer.take(1)
    everything = begun[:size]
    assert buffer.has(5)
    buffer.collect(5, size)
    for chunk in chunks:
        buffer.feed(chunk)
        everything += chunk
        assert len(buffer) == 5 + len(everything)
        assert not buffer.has(1)
        assert buffer.collected == (everything[:size] if len(everything) >= size else None)
    if buffer.collected is not None:
        buffer.end_collecting()
        everything = everything[size:]
    else:
        buffer.clear()
        everything = b""
    assert buffer.collected is None
    assert len(buffer) == len(everything)
    assert buffer.has(len(everything))
    assert buffer.take(len(everything)) == everything


def test_collected_payload_is_not_copied() -> None:
    buffer = ReceiveBuffer()
    buffer.feed(b"abc")
    buffer.collect(1, 4)
    buffer.feed(b"de")
    assert buffer.collected == b"bcde"
    assert buffer.collected is buffer.collected
