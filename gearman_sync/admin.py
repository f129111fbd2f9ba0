"""The blocking admin client: python-gearman's interface, based on `AdminEngine`."""

# ruff: noqa: D102 - methods inherit their documentation

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from gearman_proto import AdminEngine, InvalidAdminClientState, Server, text
from gearman_proto.checks import to_seconds
from gearman_proto.surface import AdminClient
from gearman_proto.tls import make_contexts

from ._closing import ClosesOnExit, SSLContext, load_ssl
from ._driver import Driver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gearman_proto import (
        FunctionStatus,
        JobRecord,
        PriorityStatus,
        ServerAddress,
        WorkerStatus,
    )

T = TypeVar("T")


class GearmanAdminClient(AdminClient[Server, SSLContext], ClosesOnExit):
    """A client for the admin commands of one Gearman server.

    From python-gearman (`gearman.GearmanAdminClient`). The client keeps its connection open between
    calls. Threads can share a client, which runs their calls one after the other.
    """

    _gm_driver: Driver[AdminEngine]

    def _gm_setup(self, addresses: list[ServerAddress], options: dict[str, Any]) -> None:
        make_engine = functools.partial(AdminEngine, addresses, **options)
        self._gm_driver = Driver(
            make_engine, make_contexts(addresses, load_ssl), InvalidAdminClientState
        )

    def _gm_ask(self, command: text.Command[T]) -> T:
        timeout = to_seconds(self.poll_timeout)
        return self._gm_driver.run(AdminEngine.ask, command, timeout=timeout).value

    def get_status(self) -> tuple[FunctionStatus, ...]:
        return self._gm_ask(text.status())

    def get_priority_status(self) -> tuple[PriorityStatus, ...]:
        return self._gm_ask(text.prioritystatus())

    def get_workers(self) -> tuple[WorkerStatus, ...]:
        return self._gm_ask(text.workers())

    def get_jobs(self) -> tuple[JobRecord, ...]:
        return self._gm_ask(text.show_jobs())

    def get_unique_jobs(self) -> tuple[str, ...]:
        return self._gm_ask(text.show_unique_jobs())

    def get_version(self) -> str:
        return self._gm_ask(text.version())

    def get_pid(self) -> int:
        return self._gm_ask(text.getpid())

    def get_verbosity(self) -> str:
        return self._gm_ask(text.verbose())

    def ping_server(self) -> float:
        return self._gm_driver.run(AdminEngine.ping, timeout=to_seconds(self.poll_timeout)).value

    def send_maxqueue(self, task: str | bytes, max_size: int | Iterable[int | None] | None) -> str:
        return self._gm_ask(text.maxqueue(task, max_size))

    def cancel_job(self, handle: str | bytes) -> str:
        return self._gm_ask(text.cancel_job(handle))

    def create_function(self, task: str | bytes) -> str:
        return self._gm_ask(text.create_function(task))

    def drop_function(self, task: str | bytes) -> str:
        return self._gm_ask(text.drop_function(task))

    def send_shutdown(self, graceful: bool = True) -> str:
        return self._gm_ask(text.shutdown(graceful=graceful))

    def shutdown(self) -> None:
        self._gm_driver.close()
