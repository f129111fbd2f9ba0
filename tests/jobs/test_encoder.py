"""What encoders may make of data, and what is sent."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.jobs.encoder import DataEncoder, NoopEncoder, encode_data


class Bytes(bytes):
    pass


class Returns(DataEncoder):
    """Encodes everything as the same."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def encode(self, encodable_object: Any) -> Any:  # type: ignore[override]
        return self.value


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        (b"\0\xff", b"\0\xff"),
        ("ü", "ü".encode()),
        ("\udcff", b"\xff"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"xyz")[1:], b"yz"),
        (Bytes(b"x"), b"x"),
    ],
)
def test_what_is_taken(data: Any, sent: bytes) -> None:
    encoded = encode_data(NoopEncoder, data)
    assert encoded == sent
    assert type(encoded) is bytes
    assert encode_data(Returns(data), object()) == sent


@pytest.mark.parametrize("data", [None, 7, ["x"], {"a": 1}, object()])
def test_what_is_not(data: Any) -> None:
    with pytest.raises(TypeError, match=type(data).__name__):
        encode_data(NoopEncoder, data)
    with pytest.raises(TypeError, match=type(data).__name__):
        encode_data(Returns(data), b"")


def test_noop_decodes_to_the_same() -> None:
    data = b"\0\xff"
    assert NoopEncoder.decode(data) is data


def test_the_base_is_abstract() -> None:
    with pytest.raises(NotImplementedError):
        DataEncoder.encode(b"")
    with pytest.raises(NotImplementedError):
        DataEncoder.decode(b"")
