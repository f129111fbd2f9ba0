"""A job as its worker sees it."""

from __future__ import annotations

from typing import Any, NoReturn

from .encoder import NoopEncoder
from .job import GearmanJob, Missing


class WorkerJob(GearmanJob):
    """A job as its worker sees it.

    Its `task`, `unique`, `handle` and `connection` are as in GearmanJob. What follows is for those
    who drive an engine, but for `data` and `is_lost`.

    Attributes:
        ended: Whether its result, failure or exception was sent, or its connection was lost when it
            was to be sent.
        over: Whether its caller is done with it, so that another one may be asked for.
        encoder: What decodes its data, when that is first read.
        wire_handle: Its handle, as servers have it.
        wire_task: Its task, as servers have it.
        link: The engine's connection that it came over; it has an `address`, and is `alive` or not.
    """

    __slots__ = (
        "_data",
        "_payload",
        "encoder",
        "ended",
        "link",
        "over",
        "wire_handle",
        "wire_task",
    )

    def __init__(
        self, link: Any, handle: bytes, task: bytes, unique: bytes | None, payload: bytes
    ) -> None:
        super().__init__(link.address, handle, task, unique, None)
        self.ended: bool = False
        self.over: bool = False
        self.encoder: Any = NoopEncoder
        self.wire_handle: bytes = handle
        self.wire_task: bytes = task
        self.link: Any = link
        self._payload = payload
        self._data: Any = Missing

    @property
    def data(self) -> Any:
        """The decoded data of the job.

        Raises:
            Exception: Any exception that the encoder's `decode` raises.
        """
        if self._data is Missing:
            self._data = self.encoder.decode(self._payload)
        return self._data

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} belongs to its worker, so it can't be copied or pickled: pickle job.data"
        )

    @property
    def is_lost(self) -> bool:
        """Whether its connection was lost, so that the server gives it to somebody else."""
        return not self.ended and not self.link.alive
