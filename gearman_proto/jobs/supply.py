"""Requests of many plain jobs, made when there is room for them on the wire.

All of the jobs are looked at before the first is sent, so that nothing is sent if one of them is
bad. What takes longer, to make their requests, is done while servers are at work on those before.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, final, overload

from gearman_proto.constants import PRIORITY_NONE

from .request import GearmanJobRequest

if TYPE_CHECKING:
    from collections.abc import Iterator


@final  # So that its type can be asked for: `isinstance` takes long with an ABC.
class Supply(Sequence[GearmanJobRequest]):
    """The requests of plain jobs, which have been checked. Whoever looks at one makes them all.

    Args:
        tasks: The task of each job.
        payloads: The data of each.
        background: Whether nobody waits for the jobs' ends.
        attempts: How often the submit of each may be sent.

    Attributes:
        requests: Those that were made, in order; nobody but this may change it until all are.
    """

    __slots__ = ("_attempts", "_background", "_jobs", "_size", "requests")

    def __init__(
        self, tasks: list[str], payloads: list[bytes], background: bool, attempts: int
    ) -> None:
        self.requests: list[GearmanJobRequest] = []
        self._jobs = zip(tasks, payloads)
        self._size = len(tasks)
        self._background = background
        self._attempts = attempts

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> GearmanJobRequest: ...

    @overload
    def __getitem__(self, index: slice) -> list[GearmanJobRequest]: ...

    def __getitem__(self, index: int | slice) -> GearmanJobRequest | list[GearmanJobRequest]:
        return self.all()[index]

    def __iter__(self) -> Iterator[GearmanJobRequest]:
        return iter(self.all())

    def all(self) -> list[GearmanJobRequest]:
        """Make what is left, and return all of the requests."""
        self.take(self._size)
        return self.requests

    def take(self, count: int) -> list[GearmanJobRequest]:
        """Make the next `count` requests, prepared, and return them: fewer if there are no more."""
        count = min(count, self._size - len(self.requests))
        # All at once, and then set up: so that the cycle collector, which looks at the young again
        # and again, does so while they are empty.
        made = list(map(GearmanJobRequest.__new__, itertools.repeat(GearmanJobRequest, count)))
        background, attempts = self._background, self._attempts
        for request, (task, payload) in zip(made, self._jobs):
            request.set_up(task, payload, PRIORITY_NONE, background, attempts)
            request.payload = payload
        self.requests += made
        return made
