"""Which servers get which TLS context, and which is one; with a stand-in for `ssl`."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.address import ServerAddress
from gearman_proto.tls import check_context, make_contexts, parse_servers


class Context:
    def __init__(self, cafile: str | None = None) -> None:
        self.made_of: tuple[str | None, ...] = (cafile,)
        self.protocol = "of servers"

    def load_cert_chain(self, certfile: str, keyfile: str | None) -> None:
        self.made_of += (certfile, keyfile)


class Ssl:
    SSLContext = Context
    PROTOCOL_TLS_CLIENT = "of clients"
    create_default_context = Context


def test_context_of_all() -> None:
    """It is for those that have none of their own."""
    hosts: list[Any] = [
        "one",
        {"host": "two", "ca_certs": "ca"},
        {"host": "three", "ssl_context": "own"},
    ]
    assert parse_servers(hosts, None) == [
        ServerAddress("one"),
        ServerAddress("two", ca_certs="ca"),
        ServerAddress("three", ssl_context="own"),
    ]
    assert parse_servers(hosts, "all") == [
        ServerAddress("one", ssl_context="all"),
        ServerAddress("two", ca_certs="ca"),
        ServerAddress("three", ssl_context="own"),
    ]


def test_contexts() -> None:
    own = Context()
    plain, given, verified, known = addresses = [
        ServerAddress("one"),
        ServerAddress("two", ssl_context=own),
        ServerAddress("three", ca_certs="ca"),
        ServerAddress("four", certfile="certificate", keyfile="key"),
    ]
    contexts = make_contexts(addresses, Ssl())
    assert plain not in contexts
    assert contexts[given] is own
    assert contexts[verified].made_of == ("ca",)
    assert contexts[known].made_of == (None, "certificate", "key")


def test_what_is_no_context() -> None:
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not 'ca'"):
        make_contexts([ServerAddress("one", ssl_context="ca")], Ssl())


def test_context_of_a_job_server() -> None:
    context = Context()
    assert check_context(None, Ssl()) is None
    assert check_context(context, Ssl()) is context
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not 'ca'"):
        check_context("ca", Ssl())
    context.protocol = Ssl.PROTOCOL_TLS_CLIENT
    with pytest.raises(ValueError, match="ssl_context is for clients"):
        check_context(context, Ssl())
