"""The TLS contexts of a list of servers, for both adapters: the core knows no `ssl`."""

from __future__ import annotations

import dataclasses
import ssl
from typing import TYPE_CHECKING

from gearman_proto.address import ServerAddress, parse_host_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gearman_proto.address import HostSpec


def make_ssl_context(address: ServerAddress) -> ssl.SSLContext | None:
    """Return the context for `address`: its own, or one that verifies the server, or None.

    Raises:
        OSError: A file of keys or certificates can't be read.
        ssl.SSLError: It does not hold what it should.
        TypeError: Its ssl_context is none.
    """
    if not address.uses_tls:
        return None
    if address.ssl_context is not None:
        if not isinstance(address.ssl_context, ssl.SSLContext):
            raise TypeError(f"ssl_context is an ssl.SSLContext, not {address.ssl_context!r}")
        return address.ssl_context
    context = ssl.create_default_context(cafile=address.ca_certs)
    if address.certfile is not None:
        context.load_cert_chain(address.certfile, address.keyfile)
    return context


def make_contexts(
    host_list: Iterable[HostSpec] | None, ssl_context: ssl.SSLContext | None
) -> tuple[list[ServerAddress], dict[ServerAddress, ssl.SSLContext]]:
    """Return the addresses in `host_list`, and the contexts of those that use TLS.

    `ssl_context` is for those that have no TLS of their own. Raises what `parse_host_list` and
    `make_ssl_context` do.
    """
    addresses = parse_host_list(host_list)
    if ssl_context is not None:
        addresses = [
            address if address.uses_tls else dataclasses.replace(address, ssl_context=ssl_context)
            for address in addresses
        ]
    contexts = {address: make_ssl_context(address) for address in addresses}
    return addresses, {a: context for a, context in contexts.items() if context is not None}
