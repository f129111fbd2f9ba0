"""Data encoders: conversion of an application's objects to payloads of jobs and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gearman_proto.names import to_text
from gearman_proto.wire.packets import WorkComplete, WorkData, WorkException, WorkWarning

if TYPE_CHECKING:
    from gearman_proto.wire.packets import PacketEvent

#: Names for the payloads of a worker's packets, used in error messages.
CARRIED: Final[dict[type[PacketEvent], str]] = {
    WorkComplete: "the result",
    WorkData: "a part of the result",
    WorkWarning: "a warning",
    WorkException: "the exception",
}


class DataEncoder:
    """The base class of encoders (python-gearman: `gearman.DataEncoder`).

    Override both methods, and set the class or an instance as the `data_encoder` of a client or
    worker.
    """

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        """Return `encodable_object` as bytes, or as a str, which is sent as UTF-8."""
        raise NotImplementedError

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        """Return the object that the bytes `decodable_string` represent."""
        raise NotImplementedError


class NoopEncoder(DataEncoder):
    """The default encoder: sends bytes-like data unchanged and str as UTF-8, and returns bytes."""

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        """Return `encodable_object` itself. Types other than bytes and str are refused later."""
        return encodable_object

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        """Return `decodable_string` itself."""
        return decodable_string


class TextEncoder(NoopEncoder):
    """An encoder that returns str. It sends str as UTF-8 and bytes-like data unchanged."""

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        """Return a str as UTF-8, and any other object itself.

        Raises:
            UnicodeEncodeError: The str has a lone surrogate.
        """
        is_text = isinstance(encodable_object, str)
        return encodable_object.encode() if is_text else encodable_object

    @classmethod
    def decode(cls, decodable_string: bytes) -> str:
        """Return the str that `decodable_string` is in UTF-8.

        Raises:
            UnicodeDecodeError: `decodable_string` is not UTF-8.
        """
        return decodable_string.decode()


class JSONEncoder(DataEncoder):
    """An encoder for objects that JSON can represent."""

    @classmethod
    def encode(cls, encodable_object: Any) -> str:
        """Return `encodable_object` as JSON.

        Raises:
            TypeError: JSON can't represent `encodable_object`.
            ValueError: `encodable_object` contains itself, NaN or an infinite number.
        """
        import json  # noqa: PLC0415 - few programs need it

        return json.dumps(encodable_object, allow_nan=False)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        """Return the object that `decodable_string` represents, or None if it is empty.

        Workers in other languages can complete a job without data.

        Raises:
            ValueError: `decodable_string` is not JSON.
        """
        import json  # noqa: PLC0415 - few programs need it

        return json.loads(decodable_string) if decodable_string else None


def encode_data(
    encoder: Any, data: Any, kind: type[PacketEvent] | None = None, task: str | bytes = b""
) -> bytes:
    """Encode `data` and return it as bytes.

    Args:
        encoder: A DataEncoder.
        data: The application's object.
        kind: The worker's packet that will contain the payload; None for the data of a client's
            job.
        task: The job's task, for error messages; empty if unknown.

    Raises:
        TypeError: The encoder's result is neither bytes-like nor a str.
        Exception: Any exception that the encoder raises.
    """
    encoded = encoder.encode(data)
    if type(encoded) is bytes:
        return encoded
    if isinstance(encoded, str):
        return encoded.encode("utf-8", "surrogateescape")
    if isinstance(encoded, (bytes, bytearray, memoryview)):
        return bytes(encoded)
    raise _refusal(data, encoded, kind, task)


def _refusal(
    data: Any, encoded: Any, kind: type[PacketEvent] | None, task: str | bytes
) -> TypeError:
    """Return the error for an encoder that returned `encoded`, which can't be sent, for `data`."""
    side = "client" if kind is None else "worker"
    carried = "the data" if kind is None else CARRIED[kind]
    what = f"{carried} of {repr(to_text(task, 'task')) if task else 'a job'}"
    made = type(encoded).__name__
    if encoded is data:
        return TypeError(
            f"{what} must be bytes or str, not {made}; a data_encoder of the {side} can make bytes "
            "of it"
        )
    return TypeError(
        f"the {side}'s data_encoder must make bytes or str of {what}, and has made {made}"
    )
