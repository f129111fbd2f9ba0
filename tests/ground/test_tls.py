"""Which servers get which TLS context, and which is one; with a stand-in for `ssl`."""

from __future__ import annotations

from typing import Any

import pytest

from gearman_proto.address import ServerAddress
from gearman_proto.tls import (
    check_context,
    connect_timeout,
    handshake_failure,
    make_contexts,
    parse_servers,
)


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


class SslError(OSError):
    """As `ssl.SSLError`."""

    def __init__(self, reason: str | None) -> None:
        super().__init__(1, f"[SSL: {reason}]")
        self.reason = reason


@pytest.mark.parametrize(
    "error",
    [
        SslError("WRONG_VERSION_NUMBER"),
        SslError("RECORD_LAYER_FAILURE"),
        SslError(None),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
def test_a_handshake_that_was_answered_in_something_else(error: OSError) -> None:
    said = handshake_failure(error)
    assert isinstance(said, ConnectionError)
    assert str(said) == f"{error} during the TLS handshake; does this server speak TLS?"


def test_a_handshake_that_was_cut_short() -> None:
    said = str(handshake_failure(SslError("UNEXPECTED_EOF_WHILE_READING")))
    assert said == "the connection was closed during the TLS handshake; does this server speak TLS?"


@pytest.mark.parametrize(
    "error",
    [
        SslError("CERTIFICATE_VERIFY_FAILED"),
        SslError("TLSV1_ALERT_UNKNOWN_CA"),
        SslError("UNSUPPORTED_PROTOCOL"),
        ValueError("server_hostname cannot be an empty string"),
    ],
)
def test_a_handshake_that_failed_for_another_reason(error: Exception) -> None:
    assert handshake_failure(error) is error


def test_no_connection_in_time() -> None:
    assert str(connect_timeout(ServerAddress("h"), 2.0)) == "no connection within 2 seconds"
    said = str(connect_timeout(ServerAddress("h", ca_certs="ca"), 0.5))
    assert said.startswith("no connection within 0.5 seconds, including the TLS handshake; does")


def test_context_of_a_job_server() -> None:
    context = Context()
    assert check_context(None, Ssl()) is None
    assert check_context(context, Ssl()) is context
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not 'ca'"):
        check_context("ca", Ssl())
    context.protocol = Ssl.PROTOCOL_TLS_CLIENT
    with pytest.raises(ValueError, match="ssl_context is for clients"):
        check_context(context, Ssl())
