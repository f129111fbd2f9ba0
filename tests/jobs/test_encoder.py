"""Conversion of data by encoders, and the errors for wrong types."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.jobs.encoder import DataEncoder, NoopEncoder, encode_data
from gearman_proto.wire.packets import WorkComplete, WorkData, WorkException, WorkWarning


class Bytes(bytes):
    pass


class Returns(DataEncoder):
    """An encoder that returns the same value for any data."""

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
def test_encode_data_returns_bytes(data: Any, sent: bytes) -> None:
    encoded = encode_data(NoopEncoder, data)
    assert encoded == sent
    assert type(encoded) is bytes
    assert encode_data(Returns(data), object()) == sent


@pytest.mark.parametrize(
    ("kind", "task", "what"),
    [
        (None, "", "the data of a job"),
        (None, "task", "the data of 'task'"),
        (WorkComplete, b"", "the result of a job"),
        (WorkComplete, b"task", "the result of 'task'"),
        (WorkData, b"task", "a part of the result of 'task'"),
        (WorkWarning, b"task", "a warning of 'task'"),
        (WorkException, b"\xff", "the exception of '\\udcff'"),
    ],
)
def test_error_for_wrong_type_names_packet_task_and_cure(kind: Any, task: Any, what: str) -> None:
    side = "worker" if kind else "client"
    with pytest.raises(TypeError) as caught:
        encode_data(NoopEncoder, 7, kind, task)
    assert str(caught.value) == (
        f"{what} must be bytes or str, not int; a data_encoder of the {side} can make bytes of it"
    )


def test_error_for_wrong_type_from_encoder_blames_the_encoder() -> None:
    with pytest.raises(TypeError, match="the client's data_encoder must make bytes or str of the "):
        encode_data(Returns(7), b"")
    with pytest.raises(TypeError, match=r"the worker's .* of the result of 't', and has made int$"):
        encode_data(Returns(7), b"", WorkComplete, b"t")


def test_base_encoder_is_abstract() -> None:
    with pytest.raises(NotImplementedError):
        DataEncoder.encode(b"")
    with pytest.raises(NotImplementedError):
        DataEncoder.decode(b"")
