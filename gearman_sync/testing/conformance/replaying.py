"""Replay a recording, such as those that `--trace` writes."""

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
    """Replay the recorded clients and workers against a server.

    Returns:
        The differences from the recorded answers, one per line, or an empty text.

    Raises:
        OSError: The file can't be read, or the server can't be reached.
        ValueError: The file is not a recording.
    """
    return "\n".join(map(str, replay(Recording.load(path), address, timeout=timeout)))


def replay_program(path: str | os.PathLike[str], launch: Launch, timeout: float) -> str:
    """Start a worker or client with `launch`, and replay the recorded server against it.

    The other parameters, the result and the exceptions are those of `replay_server`.
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
    """Return the function and the payloads of the jobs that the recorded client has submitted."""
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
