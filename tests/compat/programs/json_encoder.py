"""The JSON encoder that several of these programs share."""

# ruff: noqa: E402

import gearman_sync

gearman_sync.install_as_gearman()

import json
from typing import Any

from gearman import DataEncoder


class JSONDataEncoder(DataEncoder):  # type: ignore[misc]
    @classmethod
    def encode(cls, encodable_object: Any) -> str:
        return json.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: Any) -> Any:
        return json.loads(decodable_string)
