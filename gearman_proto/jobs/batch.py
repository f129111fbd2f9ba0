"""Requests for a large batch of plain jobs, made when there is room for them on the wire.

All jobs are checked before the first is sent, so that an invalid job stops the whole call. Making
their requests takes longer, and happens while servers process the earlier jobs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, final, overload

from gearman_proto.constants import PRIORITY_NONE

from .request import GearmanJobRequest
from .tracking import set_up

if TYPE_CHECKING:
    from collections.abc import Iterator


@final  # So that code can compare its type: `isinstance` is slow with an ABC.
class Batch(Sequence[GearmanJobRequest]):
    """The requests for plain jobs that were already checked. Reading any request makes all.

    Args:
        tasks: The task of each job.
        payloads: The data of each job.
        background: If true, the submitter does not wait for the jobs' ends.
        attempts: Maximum number of attempts to submit each job.

    Attributes:
        requests: The requests made so far, in order. Until all are made, only this object changes
            the list.
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
        """Make the remaining requests, and return all requests."""
        self.take(self._size)
        return self.requests

    def take(self, count: int) -> list[GearmanJobRequest]:
        """Make, prepare and return the next `count` requests, or all remaining ones if fewer."""
        count = min(count, self._size - len(self.requests))
        # Make all objects before setting any up: the cycle collector scans young objects often, and
        # that is faster while they are empty.
        made = list(map(GearmanJobRequest.__new__, itertools.repeat(GearmanJobRequest, count)))
        background, attempts = self._background, self._attempts
        for request, (task, payload) in zip(made, self._jobs):
            set_up(request, task, payload, PRIORITY_NONE, background, attempts)
            request._gm_payload = payload
        self.requests += made
        return made
