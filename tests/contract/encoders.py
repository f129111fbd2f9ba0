"""Data encoders of applications, with and without bugs."""

from __future__ import annotations

import json
from typing import Any

from gearman_proto.jobs.encoder import DataEncoder


class JsonEncoder(DataEncoder):
    @classmethod
    def encode(cls, encodable_object: Any) -> str:
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return json.loads(decodable_string)


class WordEncoder(DataEncoder):
    """An encoder for ASCII text only."""

    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        if not isinstance(encodable_object, str):
            raise LookupError(f"no word: {encodable_object!r}")  # noqa: TRY004 - any will do
        return encodable_object.encode("ascii")

    @classmethod
    def decode(cls, decodable_string: bytes) -> str:
        return decodable_string.decode("ascii")
