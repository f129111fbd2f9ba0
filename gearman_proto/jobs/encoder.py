"""How the Python objects of an application become the payloads of jobs, and back."""

from __future__ import annotations

from typing import Any


class DataEncoder:
    """The base of encoders: override both methods and set the class as a `data_encoder`.

    An encoder may be a class or an instance; only its two methods are used. From python-gearman
    (`gearman.DataEncoder`).
    """

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        """Return `encodable_object` as bytes (or as a str, which is then sent as UTF-8)."""
        raise NotImplementedError

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        """Return the object that the bytes `decodable_string` stand for."""
        raise NotImplementedError


class NoopEncoder(DataEncoder):
    """The default: bytes-like data goes as it is, str as UTF-8, and bytes come back."""

    @classmethod
    def encode(cls, encodable_object: Any) -> Any:
        """Return `encodable_object` itself; what is not bytes-like or str is refused later."""
        return encodable_object

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        """Return `decodable_string` itself."""
        return decodable_string


def encode_data(encoder: Any, data: Any) -> bytes:
    """Return `data` as `encoder` makes it, as bytes.

    Raises:
        TypeError: The encoder returned something that is neither bytes-like nor a str.
        Exception: Whatever the encoder raises.
    """
    encoded = encoder.encode(data)
    if type(encoded) is bytes:
        return encoded
    if isinstance(encoded, str):
        return encoded.encode("utf-8", "surrogateescape")
    if isinstance(encoded, (bytes, bytearray, memoryview)):
        return bytes(encoded)
    raise TypeError(
        f"a job's data must be bytes or str (or have a data_encoder that makes bytes of it), "
        f"not {type(encoded).__name__}"
    )
