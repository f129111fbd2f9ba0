"""A site's client and worker: arguments of functions are pickled, and names are decorated."""

# ruff: noqa: E402

import gearman_sync

gearman_sync.install_as_gearman()

import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import gearman


class PickleDataEncoder(gearman.DataEncoder):  # type: ignore[misc]
    @classmethod
    def encode(cls, encodable_object: Any) -> bytes:
        return pickle.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string: bytes) -> Any:
        return pickle.loads(decodable_string)


class SiteClient(gearman.GearmanClient):  # type: ignore[misc]
    data_encoder = PickleDataEncoder
    servers: ClassVar[list[str]] = []

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(self.servers, **kwargs)

    def submit_job(
        self,
        task: str,
        orig_data: Any = None,
        unique: Any = None,
        priority: Any = None,
        background: bool = False,
        wait_until_complete: bool = True,
        max_retries: int = 0,
        poll_timeout: float | None = None,
        args: Any = None,
        kwargs: Any = None,
    ) -> Any:
        data = {"args": [orig_data] if orig_data else list(args or ()), "kwargs": kwargs or {}}
        return super().submit_job(
            f"site.{task}",
            data,
            unique,
            priority,
            background,
            wait_until_complete,
            max_retries,
            poll_timeout,
        )

    def dispatch_background_task(
        self, func: str, arg: Any = None, uniq: Any = None, high_priority: bool = False
    ) -> Any:
        priority = None
        if high_priority:
            priority = gearman.PRIORITY_HIGH
        return self.submit_job(
            func, arg, unique=uniq, wait_until_complete=False, background=True, priority=priority
        )


class SiteWorker(gearman.GearmanWorker):  # type: ignore[misc]
    data_encoder = PickleDataEncoder
    servers: ClassVar[list[str]] = []

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(self.servers, **kwargs)

    def register_task(self, task_name: str, task: Callable[..., Any]) -> Any:
        return super().register_task(f"site.{task_name}", task)


def gearman_job(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a function so that it receives the arguments of the job."""

    def gm_job(worker: Any, job: Any) -> Any:
        return function(*job.data["args"], **job.data["kwargs"])

    return gm_job
