"""An async worker under test in a test that is not async."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio
from anyio.from_thread import start_blocking_portal

from gearman_proto.address import parse_address

from .clock import check_backend
from .running import WorkerUnderTest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from anyio.from_thread import BlockingPortal

    from gearman_anyio.worker import GearmanWorker
    from gearman_proto.address import HostSpec
    from gearman_proto.surface.callbacks import Callback
    from gearman_proto.testing.runs import JobRun


class BlockingWorkerUnderTest:
    """An async worker that does a server's jobs, for a test that is not async.

    Use it like `gearman_sync.testing.WorkerUnderTest`. The fixture `gearman_worker` returns one for
    async callbacks. The worker's event loop runs during `drain`, in the same thread. Inside
    ``with``, it runs in a thread of its own. ::

        worker = BlockingWorkerUnderTest({"resize": resize}, gearman_server)
        upload("cat.png")  # submits a background job
        worker.drain()

    Args:
        worker: Callbacks by task, async or plain, or a GearmanWorker of `gearman_anyio`.
        server: The address of the server.
        backend: The event loop, ``"asyncio"`` or ``"trio"``.
        options: The other arguments of `WorkerUnderTest`.

    Raises:
        TypeError, ValueError: As for `WorkerUnderTest`.

    Attributes:
        worker: The worker.
    """

    def __init__(
        self,
        worker: GearmanWorker | Mapping[str, Callback],
        server: HostSpec,
        *,
        backend: str = "asyncio",
        **options: Any,
    ) -> None:
        check_backend(backend)
        parse_address(server)
        self._awaited = WorkerUnderTest(worker, server, **options)
        self._backend = backend
        self._portal: BlockingPortal | None = None
        self._stack = contextlib.ExitStack()
        self.worker: GearmanWorker = self._awaited.worker

    @property
    def runs(self) -> list[JobRun]:
        """The jobs that were done, in the order of their ends: `job`, `result`, `error`."""
        return self._awaited.runs

    def drain(self) -> list[JobRun]:
        """Return when the server has no job for the worker: see `WorkerUnderTest.drain`."""
        self._awaited._check_outside()  # noqa: SLF001 - they are one
        if self._portal is not None:
            return self._portal.call(self._awaited.drain)
        return anyio.run(self._awaited.drain, backend=self._backend)

    def __enter__(self) -> Self:
        if self._portal is not None:
            raise RuntimeError(f"{self.worker!r} is under test already: end that `with` first")
        with contextlib.ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(self._backend))
            stack.enter_context(portal.wrap_async_context_manager(self._awaited))
            self._portal = portal
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._portal = None
        self._stack.__exit__(kind, error, traceback)
