"""Conversion of data by encoders, and the errors for wrong types."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.jobs.encoder import (
    DataEncoder,
    JSONEncoder,
    NoopEncoder,
    TextEncoder,
    encode_data,
)
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


@pytest.mark.parametrize(
    ("encoder", "data", "sent", "received"),
    [
        (TextEncoder, "ü", "ü".encode(), "ü"),
        (TextEncoder, bytearray(b"x"), b"x", "x"),
        (TextEncoder, "", b"", ""),
        (JSONEncoder, {"ü": [1.5, None, True]}, b'{"\\u00fc": [1.5, null, true]}', ...),
        (JSONEncoder, (1, 2), b"[1, 2]", [1, 2]),
        (JSONEncoder, None, b"null", None),
    ],
)
def test_encoder_sends_and_receives(encoder: Any, data: Any, sent: bytes, received: Any) -> None:
    assert encode_data(encoder, data) == sent
    assert encoder.decode(sent) == (data if received is ... else received)


def test_json_decoder_returns_none_without_data() -> None:
    """Workers in other languages can complete a job without data."""
    assert JSONEncoder.decode(b"") is None


@pytest.mark.parametrize(
    ("encoder", "data"),
    [
        (TextEncoder, "\udcff"),
        (TextEncoder, 7),
        (JSONEncoder, b"bytes"),
        (JSONEncoder, float("nan")),
    ],
)
def test_encoder_refuses_other_data(encoder: Any, data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_data(encoder, data)


@pytest.mark.parametrize("encoder", [TextEncoder, JSONEncoder])
def test_decoder_refuses_data_that_is_not_utf8(encoder: Any) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        encoder.decode(b"\xff")
