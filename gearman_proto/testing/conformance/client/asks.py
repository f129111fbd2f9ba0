"""Cases about the other requests of clients: ECHO_REQ and OPTION_REQ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gearman_proto.testing.conformance.case import INFO, Failed
from gearman_proto.testing.conformance.program_kit import HANDLE, ClientKit, client_case
from gearman_proto.wire.packets import EchoReq, JobCreated, OptionReq, WorkComplete

if TYPE_CHECKING:
    from gearman_proto.testing.conformance.session import Session

_DOES = {"goes on": (), "gives up": (), "waits": (), "does not ask": ()}


@client_case("echo/ping/1", INFO, "ECHO_REQ: for testing or debugging", known=_DOES)
def ping(it: ClientKit) -> str:
    """Reaction to the answer to ECHO_REQ."""
    client = it.accepted()
    client.send(WorkComplete(HANDLE, b"result"))
    did = it.does()
    client.rest_of()
    return did if any(isinstance(each, EchoReq) for each in client.events) else "does not ask"


@client_case("option/silence/1", INFO, known=_DOES)
def unanswered(it: ClientKit) -> str:
    """Reaction to an unanswered OPTION_REQ.

    Source: not in the document: gear 0.16 does not answer OPTION_REQ
    """
    it.start()
    client = it.accept()
    client.grants_options = False
    return _goes_on(it, client)


@client_case("option/error/1", INFO, 'OPTION_REQ: "or an ERROR packet on failure"', known=_DOES)
def refused(it: ClientKit) -> str:
    """Reaction to a refused OPTION_REQ."""
    it.start()
    client = it.accept()
    client.refuse_options()
    return _goes_on(it, client)


def _goes_on(it: ClientKit, client: Session) -> str:
    """Return the behaviour of a client that can send OPTION_REQ before its submit."""
    try:
        client.submitted()
    except Failed:
        return it.does()
    client.send_anyway(JobCreated(HANDLE), WorkComplete(HANDLE, b"result"))
    asked = any(isinstance(each, OptionReq) for each in client.events)
    return it.does() if asked else "does not ask"
