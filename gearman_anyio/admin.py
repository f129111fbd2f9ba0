"""The admin client for trio and asyncio: python-gearman's surface, awaited, on the admin engine."""

# ruff: noqa: D102 - the documentation of methods is inherited

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.lowlevel

from gearman_proto import AdminEngine, Server, constants, text
from gearman_proto.checks import to_seconds
from gearman_proto.surface import AdminClient

from ._driver import Driver
from ._opening import SingleUse, SSLContext, make_opener

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from gearman_proto import (
        FunctionStatus,
        HostSpec,
        JobRecord,
        PriorityStatus,
        ServerAddress,
        WorkerStatus,
    )

    from ._streams import Connector

T = TypeVar("T")


class GearmanAdminClient(AdminClient[Server, SSLContext], SingleUse[AdminEngine]):
    """Asks one Gearman server about itself, and tells it what to do.

    From python-gearman (`gearman.GearmanAdminClient`), with the same methods, which are awaited. It
    is used once, inside ``async with GearmanAdminClient(...) as client:``, by any number of tasks,
    which are served one after the other. The connection is kept. Any call may be cancelled.
    """

    def __init__(
        self,
        host_list: Iterable[HostSpec] | None = None,
        poll_timeout: float | None = constants.DEFAULT_ADMIN_TIMEOUT,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout: float = constants.DEFAULT_CONNECT_TIMEOUT,
        max_reply_size: int = text.DEFAULT_MAX_REPLY_SIZE,
        connect: Connector | None = None,
    ) -> None:
        self._gm_connect = connect
        super().__init__(
            host_list,
            poll_timeout,
            ssl_context=ssl_context,
            connect_timeout=connect_timeout,
            max_reply_size=max_reply_size,
        )

    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        opener = make_opener(addresses, self._gm_connect)
        self._gm_driver = Driver(functools.partial(AdminEngine, addresses, **options), opener)

    async def _gm_ask(self, command: text.Command[T]) -> T:
        timeout = to_seconds(self.poll_timeout)
        return (await self._gm_open.run(AdminEngine.ask, command, timeout=timeout)).value

    async def get_status(self) -> tuple[FunctionStatus, ...]:
        return await self._gm_ask(text.status())

    async def get_priority_status(self) -> tuple[PriorityStatus, ...]:
        return await self._gm_ask(text.prioritystatus())

    async def get_workers(self) -> tuple[WorkerStatus, ...]:
        return await self._gm_ask(text.workers())

    async def get_jobs(self) -> tuple[JobRecord, ...]:
        return await self._gm_ask(text.show_jobs())

    async def get_unique_jobs(self) -> tuple[str, ...]:
        return await self._gm_ask(text.show_unique_jobs())

    async def get_version(self) -> str:
        return await self._gm_ask(text.version())

    async def get_pid(self) -> int:
        return await self._gm_ask(text.getpid())

    async def get_verbosity(self) -> str:
        return await self._gm_ask(text.verbose())

    async def ping_server(self) -> float:
        timeout = to_seconds(self.poll_timeout)
        return (await self._gm_open.run(AdminEngine.ping, timeout=timeout)).value

    async def send_maxqueue(
        self, task: str | bytes, max_size: int | Iterable[int | None] | None
    ) -> str:
        return await self._gm_ask(text.maxqueue(task, max_size))

    async def cancel_job(self, handle: str | bytes) -> str:
        return await self._gm_ask(text.cancel_job(handle))

    async def create_function(self, task: str | bytes) -> str:
        return await self._gm_ask(text.create_function(task))

    async def drop_function(self, task: str | bytes) -> str:
        return await self._gm_ask(text.drop_function(task))

    async def send_shutdown(self, graceful: bool = True) -> str:
        return await self._gm_ask(text.shutdown(graceful=graceful))

    async def shutdown(self) -> None:
        self._gm_open.close()
        await anyio.lowlevel.checkpoint()
