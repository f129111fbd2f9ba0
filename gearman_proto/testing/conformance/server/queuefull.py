"""Cases about queues of limited size."""

from __future__ import annotations

from typing import Final

from gearman_proto.testing.conformance.case import SHOULD, demand
from gearman_proto.testing.conformance.server_kit import ServerKit, case
from gearman_proto.wire.packets import Error, JobCreated, SubmitJobBg

_SIZE: Final = 'maxqueue: "sets the maximum queue size for a function"; gearmand sends ERROR'
_NONE: Final = 'maxqueue: "A zero or negative size indicates no limit"'


def _limit(it: ServerKit, size: int) -> None:
    """Limit the queue of the case's function. The server must know the function."""
    it.admin().text(b"maxqueue %s %d" % (it.function, size), b"OK")


@case("submit/queue-full/1", SHOULD, _SIZE, requires=("maxqueue",))
def refused(it: ServerKit) -> None:
    """A submit to a full queue is answered with ERROR and creates no job."""
    client, worker = it.client(), it.worker()
    _limit(it, 2)
    client.send(*[SubmitJobBg(it.function, b"", b"data")] * 4)
    made = [client.expect(JobCreated).handle for _ in range(2)]
    client.expect(Error)
    client.expect(Error)
    for handle in made:
        worker.run(handle=handle)
    worker.grab_nothing()
    _limit(it, 0)


@case("submit/queue-full/2", SHOULD, _SIZE, requires=("maxqueue", "coalescing"))
def joined(it: ServerKit) -> None:
    """A submit that joins a job is accepted even if the queue is full."""
    client, worker = it.client(), it.worker()
    _limit(it, 1)
    handle = client.submit(unique=it.another("u"), kind=SubmitJobBg)
    again = client.submit(unique=it.another("u"), kind=SubmitJobBg)
    demand(again == handle, f"the handle {handle.decode()} again", again)
    worker.run()
    _limit(it, 0)


@case("submit/queue-full/3", SHOULD, _SIZE, requires=("maxqueue",))
def free_again(it: ServerKit) -> None:
    """A full queue accepts a submit again after one of its jobs has ended."""
    client, worker = it.client(), it.worker()
    _limit(it, 1)
    for _ in range(2):
        client.submit(kind=SubmitJobBg)
        client.send(SubmitJobBg(it.function, b"", b"data"))
        client.expect(Error)
        worker.run()
    _limit(it, 0)


@case("submit/queue-full/4", SHOULD, _NONE, requires=("maxqueue",))
def no_limit(it: ServerKit) -> None:
    """A `maxqueue` of 0 removes the limit."""
    client, worker = it.client(), it.worker()
    _limit(it, 1)
    _limit(it, 0)
    for _ in range(3):
        client.submit(kind=SubmitJobBg)
    worker.run_all(3)
