"""The text of a server's ERROR packet stays on one line in the log and in exceptions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gearman_proto.wire.packets import CanDo, Error, GrabJob, GrabJobUniq

from .kit import Kit, reverse

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from gearman_sync.testing import Peer, ScriptedServer

EVIL: Final = b"no\nERROR:gearman:all is lost\x1b[2J\xe2\x80\xae"
SHOWN: Final = r"no\nERROR:gearman:all is lost\x1b[2J\u202e"


async def test_server_error_cannot_forge_a_log_line(
    kit: Kit, start_server: Callable[..., ScriptedServer], caplog: pytest.LogCaptureFixture
) -> None:
    def script(peer: Peer) -> None:
        peer.expect(CanDo)
        while isinstance(peer.receive(), (GrabJob, GrabJobUniq)):
            peer.send(Error(b"CODE", EVIL))

    server = start_server(script)
    with caplog.at_level(logging.INFO, "gearman"):
        await kit.start_worker(server.address, tasks={"task": reverse})
        await kit.eventually(lambda: caplog.records, "a line of the log")
    host, port = server.address
    assert caplog.messages[0] == f"no connection to {host}:{port}: CODE: {SHOWN}"
