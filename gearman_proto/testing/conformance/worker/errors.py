"""Cases about workers that receive ERROR.

Some known workers close the connection and reconnect. Perl's worker exits.
"""

from __future__ import annotations

from gearman_proto.testing.conformance.case import SHOULD
from gearman_proto.testing.conformance.program_kit import WorkerKit, worker_case
from gearman_proto.wire.packets import Error, OptionReq

_ERROR = 'ERROR: "whenever the server encounters an error and needs to notify a client or worker"'
_NOT_FOUND = Error(b"JOB_NOT_FOUND", b"Job given in work result not found")


@worker_case("error/idle/1", SHOULD, _ERROR, known={"connects again": ()})
def idle(it: WorkerKit) -> str | None:
    """A worker that receives an ERROR while it sleeps continues with the next job."""
    worker = it.ready()
    worker.send(_NOT_FOUND)
    return it.goes_on(worker)


@worker_case("error/result/1", SHOULD, _ERROR, known={"connects again": ()})
def result(it: WorkerKit) -> str | None:
    """A worker whose result is refused with an ERROR continues with the next job."""
    # Servers refuse the result of a job that they have taken away from the worker.
    worker = it.ready()
    worker.serve()
    worker.send(_NOT_FOUND)
    return it.goes_on(worker)


@worker_case("error/grab/1", SHOULD, _ERROR, known={"connects again": ()})
def grab(it: WorkerKit) -> str | None:
    """A worker whose grab is answered with an ERROR asks for a job again."""
    worker = it.ready()
    worker.grabs()
    worker.send(Error(b"server_error", b"no such command"))
    return it.goes_on(worker)


@worker_case("error/option/1", SHOULD, known={"asks for none": (), "connects again": ()})
def option(it: WorkerKit) -> str | None:
    """A worker whose OPTION_REQ is refused runs jobs without the option.

    Source: OPTION_REQ: "Returns a OPTION_RES packet on success, or an ERROR packet on failure"
    """
    worker = it.connected()
    worker.refuse_options()
    worker.refuse()
    has_asked = any(isinstance(event, OptionReq) for event in worker.events)
    return it.goes_on(worker) if has_asked else "asks for none"
