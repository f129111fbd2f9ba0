"""The registry of tasks, with the types of the blocking worker's callbacks."""

# ruff: noqa: D101, D102 - the documentation is inherited

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from gearman_proto.surface import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from gearman_proto import WorkerJob
    from gearman_proto.surface.worker import Result

_Callback: TypeAlias = "Callable[[WorkerJob], Result] | Callable[[Any, WorkerJob], Result]"
F = TypeVar("F", bound=_Callback)


class Tasks(tasks.Tasks):
    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            lifespan: Callable[[], AbstractContextManager[Any]] | None = None,
            around: Iterable[Callable[[WorkerJob], AbstractContextManager[Any]]] = (),
        ) -> None: ...
        def task(self, name: str | bytes, *, timeout: float | None = None) -> Callable[[F], F]: ...
