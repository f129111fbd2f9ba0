"""TLS in the blocking client, which resolves host names itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.errors import ServerUnavailable
from tests.support import resolve_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from gearman_sync import GearmanClient
    from tests.support import Stunnel


def test_wrong_host_name(
    make_client: Callable[..., GearmanClient],
    tls_tunnel: Stunnel,
    tls_host: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Connect to the same server by a name that is not in its certificate.
    resolve_to(monkeypatch, "gearman.test", ("127.0.0.1", tls_tunnel.port))
    with pytest.raises(ServerUnavailable, match=r"not valid for 'gearman\.test'"):
        make_client({**tls_host, "host": "gearman.test"}).submit_job("task", b"data")
