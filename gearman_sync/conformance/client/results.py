"""What becomes of results."""

from __future__ import annotations

from gearman_proto.wire.events import JobCreated, WorkComplete
from gearman_sync.conformance.case import MUST
from gearman_sync.conformance.programkit import ClientKit, client_case


@client_case("result/plain/1", MUST, 'WORK_COMPLETE: "Opaque data that is returned to the client"')
def plain(it: ClientKit) -> None:
    """The result of a job is the data of its WORK_COMPLETE."""
    client, _ = it.submitted()
    client.send(JobCreated(b"H:conformance:1"), WorkComplete(b"H:conformance:1", b"result"))
    it.prints(b"result")
