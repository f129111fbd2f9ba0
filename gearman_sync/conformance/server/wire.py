"""How packets are cut, and what becomes of bytes that are none."""

from __future__ import annotations

from gearman_proto.wire.events import EchoReq, EchoRes
from gearman_sync.conformance.case import MUST
from gearman_sync.conformance.serverkit import ServerKit, case


@case("wire/echo/1", MUST, 'ECHO_REQ: "a ECHO_RES packet with the same data"', requires=("echo",))
def echo(it: ServerKit) -> None:
    """ECHO_REQ is answered with the same bytes, NULs among them."""
    client = it.client()
    for data in (b"", b"a\0b\0", bytes(range(256))):
        client.send(EchoReq(data))
        client.expect(EchoRes, data=data)
