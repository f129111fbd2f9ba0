"""Requests that an engine has submitted, after the answers of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gearman_proto.jobs.encoder import DataEncoder
from gearman_proto.jobs.submitting import make_requests
from tests.engines.harness import Peer, World

if TYPE_CHECKING:
    from gearman_proto.jobs.request import GearmanJobRequest
    from gearman_proto.wire.packets import Event


class Counting(DataEncoder):
    """An encoder that records decoded data and fails for the data "bad"."""

    def __init__(self) -> None:
        self.decoded: list[bytes] = []

    def encode(self, encodable_object: Any) -> Any:  # type: ignore[override]
        if encodable_object == "bad":
            raise ZeroDivisionError
        return encodable_object

    def decode(self, decodable_string: bytes) -> Any:  # type: ignore[override]
        self.decoded.append(decodable_string)
        if decodable_string == b"bad":
            raise ZeroDivisionError
        return decodable_string.decode()


def make(*, background: bool = False, **job: Any) -> GearmanJobRequest:
    """Return a request for a job, with `job` as more of its attributes."""
    (request,) = make_requests([{"task": "t", "data": b"d", **job}], background=background)
    return request


def submit(*requests: GearmanJobRequest) -> Peer:
    """Submit `requests`. Return their server, which has received the submits."""
    world = World()
    world.submit(*requests)
    server = world.serve()
    server.take()
    return server


def played(*answers: Event, **options: Any) -> GearmanJobRequest:
    """Return a request that was submitted, after its server has sent `answers`."""
    request = World().request(**options)
    submit(request).send(*answers)
    return request
