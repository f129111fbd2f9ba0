"""``gearmanctl wait``: waits until servers answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from gearman_proto.errors import GearmanError
from gearman_sync import GearmanClient

from . import exits
from .options import Servers, seconds, with_options

if TYPE_CHECKING:
    from gearman_proto import ServerAddress


@with_options
def wait(
    servers: Servers,
    *,
    timeout: Annotated[
        float, seconds("How long to wait; inf is for ever.", "--timeout", "-t")
    ] = 60.0,
) -> int:
    """Wait until all of the servers answer.

    A connection alone does not count, as a proxy accepts connections before its server runs. The
    exit status is 4 if a server has not answered in time.

    Example:
      gearmanctl wait --timeout 30 && gearmanctl work resize -- ./resize
    """

    def connect(address: ServerAddress) -> GearmanClient:
        return GearmanClient([address])

    with servers.asking(connect) as ask_all:
        answers = ask_all(lambda client: client.wait_for_servers(timeout))
    late = [str(address) for address, answer in answers if answer is False]
    for _, answer in answers:
        if isinstance(answer, GearmanError):
            raise answer
    if late:
        message = f"no answer within {timeout:g} s: {', '.join(late)}"
        raise exits.Exit(exits.TIMED_OUT, message)
    return exits.DONE
