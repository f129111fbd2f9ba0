"""Runs the exchange of a file again, as `--trace` or a recorder has written it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gearman_proto import NEED_DATA, Connection, Role
from gearman_proto.testing.conformance.session import SUBMITS
from gearman_sync.testing import Recording, ReplayServer, replay

from .program import values_for

if TYPE_CHECKING:
    from .program import Launch


def replay_server(path: str | os.PathLike[str], address: tuple[str, int], timeout: float) -> str:
    """Play clients and workers against a server.

    Returns:
        Where it has not answered as is recorded, a line each; nothing where all was the same.

    Raises:
        OSError: There is no such file, or no server.
        ValueError: It is not a recording.
    """
    return "\n".join(map(str, replay(Recording.load(path), address, timeout=timeout)))


def replay_program(path: str | os.PathLike[str], launch: Launch, timeout: float) -> str:
    """Play the server for a worker or client, which is started.

    Arguments, result and exceptions are those of `replay_server`.
    """
    recording = Recording.load(path)
    server = ReplayServer(recording, timeout=timeout)
    server.start()
    function, payloads = _submitted(recording)
    values = values_for(server.address, function=function, payload=payloads[0])
    try:
        running = launch(values, payloads)
        try:
            server.check()
        finally:
            running.end()
    except AssertionError as error:
        return str(error)
    finally:
        server.stop(raising=False)
    return ""


def _submitted(recording: Recording) -> tuple[str, list[str]]:
    """For which function the recorded client has submitted, and which payloads."""
    end = Connection(Role.SERVER)
    function, payloads = "", []
    for element in recording.exchange:
        if element.conn != "client" or element.of_server:
            continue
        end.receive_data(element.data)
        while (event := end.next_event()) is not NEED_DATA:
            if isinstance(event, SUBMITS):
                function = os.fsdecode(event.function)
                payloads.append(os.fsdecode(event.data))
    return function, payloads or [""]
