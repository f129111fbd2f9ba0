"""Common parts of the clients and the worker: TLS, and shutdown at the end of a ``with``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

    from gearman_proto.tls import Ssl

SSLContext: TypeAlias = "ssl.SSLContext"


def load_ssl() -> Ssl[SSLContext]:
    """Import `ssl`, for the functions of `gearman_proto.tls`."""
    import ssl  # noqa: PLC0415 - slow to import

    return ssl


class ClosesOnExit(ABC):
    """A base for classes whose ``with`` statement calls `shutdown` at its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    @abstractmethod
    def shutdown(self) -> None:
        """Close all connections."""
