"""Remote procedure calls: a worker that finds its handlers by name, and its client."""

# ruff: noqa: E402, RET506

import gearman_sync

gearman_sync.install_as_gearman()

import inspect
from collections.abc import Callable, Iterator
from socket import gethostname
from typing import Any

import gearman

from tests.compat.programs.json_encoder import JSONDataEncoder


class RPCServer(gearman.GearmanWorker):  # type: ignore[misc]
    data_encoder = JSONDataEncoder

    def __init__(self, server: str, prefix: str, shutdown_event: Any) -> None:
        super().__init__(host_list=[server])
        self.shutdown_event = shutdown_event
        for name, handler in self._handlers():
            self.register_task(f"{prefix}{name}".encode(), self._wrap(handler))
        self.set_client_id(f"{gethostname()}_RPCServer".encode())

    def after_poll(self, any_activity: bool) -> bool:
        return not self.shutdown_event.is_set()

    def _handlers(self) -> Iterator[tuple[str, Callable[..., Any]]]:
        for name, handler in inspect.getmembers(self, predicate=inspect.ismethod):
            if name.startswith("_") and name.endswith("_handler"):
                yield name[1 : -len("_handler")], handler

    def _wrap(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        wants_payload = "payload" in inspect.getfullargspec(handler).args

        def wrap(worker: Any, job: Any) -> Any:
            arguments = [worker, job]
            if wants_payload:
                arguments.append(job.data)
            try:
                return handler(*arguments)
            except KeyError as error:
                return {"error": True, "message": str(error)}

        return wrap

    def _approve_handler(self, worker: Any, job: Any, payload: Any) -> Any:
        return "approving: ", payload["jobUUID"]

    def _list_handler(self, worker: Any, job: Any) -> Any:
        return []

    def _break_handler(self, worker: Any, job: Any) -> Any:
        raise ValueError("broken")


class RPCClientError(Exception):
    """The base of the errors below."""


class TimeoutError(RPCClientError):
    """Deadline exceeded."""


class RPCError(RPCClientError):
    """The worker failed."""


class RPCServerError(RPCClientError):
    """The worker reports an error."""


class GearmanClient(gearman.GearmanClient):  # type: ignore[misc]
    data_encoder = JSONDataEncoder


def call(server: str, ability: str, data: Any = None, timeout: float = 30.0) -> Any:
    client = GearmanClient([server])
    response = client.submit_job(
        ability.encode(),
        {} if data is None else data,
        background=False,
        wait_until_complete=True,
        poll_timeout=timeout,
    )
    client.shutdown()
    if response.state == gearman.JOB_CREATED:
        raise TimeoutError(timeout)
    elif response.state != gearman.JOB_COMPLETE:
        raise RPCError(f"{ability} failed")
    payload = response.result
    if isinstance(payload, dict) and payload.get("error", False):
        raise RPCServerError(payload)
    return payload
