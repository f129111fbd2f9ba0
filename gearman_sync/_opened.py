"""What the two clients and the worker have in common: TLS, and that ``with`` shuts them down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeAlias

from gearman_proto import tls

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection
    from types import TracebackType
    from typing import Self

    from gearman_proto import ServerAddress

#: `ssl` takes long to load, and is loaded where it is used.
SSLContext: TypeAlias = "ssl.SSLContext"


def make_contexts(addresses: Collection[ServerAddress]) -> dict[ServerAddress, SSLContext]:
    """Return the contexts of those of `addresses` that use TLS (`gearman_proto.tls`)."""
    if not any(address.uses_tls for address in addresses):
        return {}
    import ssl  # noqa: PLC0415

    return tls.make_contexts(addresses, ssl)


class Opened(ABC):
    """The base of what is shut down at the end of a ``with``."""

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
