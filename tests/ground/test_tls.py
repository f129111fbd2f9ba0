"""Which servers get which TLS context, and which is one; with a stand-in for `ssl`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto.address import ServerAddress
from gearman_proto.tls import (
    check_context,
    connect_timeout,
    handshake_failure,
    load_context,
    make_contexts,
    parse_servers,
)

if TYPE_CHECKING:
    from collections.abc import Callable


class Context:
    def __init__(self, cafile: str | None = None) -> None:
        self.made_of: tuple[str | None, ...] = (cafile,)
        self.protocol = "of servers"

    def load_cert_chain(
        self, certfile: str, keyfile: str | None, password: Callable[[], object]
    ) -> None:
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
    contexts = make_contexts(addresses, Ssl)
    assert plain not in contexts
    assert contexts[given] is own
    assert contexts[verified].made_of == ("ca",)
    assert contexts[known].made_of == (None, "certificate", "key")


def never() -> Any:
    raise AssertionError("ssl is loaded where there is no TLS")


def test_without_tls_nothing_is_loaded() -> None:
    assert make_contexts([ServerAddress("one")], never) == {}


def test_what_is_no_context() -> None:
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not 'ca'"):
        make_contexts([ServerAddress("one", ssl_context="ca")], Ssl)


class SslError(OSError):
    """As `ssl.SSLError`."""

    def __init__(self, reason: str | None) -> None:
        super().__init__(1, f"[SSL: {reason}]")
        self.reason = reason


def load(
    *, create: Any = None, chain: Any = None, verify: Any = None, key: str | None = "key"
) -> str:
    """What is said where one of the three calls raises an error, or calls its last argument."""

    def play(what: Any, *args: Any) -> None:
        if isinstance(what, Exception):
            raise what
        if what is not None:
            args[-1]()

    class Failing(Context):
        def __init__(self, cafile: str | None = None) -> None:
            play(create)

        def load_cert_chain(self, *args: Any) -> None:
            play(chain, *args)

        def load_verify_locations(self, cafile: str) -> None:
            play(verify)

    error = next(filter(None, (create, verify, chain)))
    with pytest.raises(OSError) as caught:
        load_context(Failing, "ca", "cert", key)
    assert type(caught.value) is (type(error) if isinstance(error, Exception) else OSError)
    return str(caught.value)


class FileError(OSError):
    """As `ssl.SSLError` is of a file."""

    def __init__(self, number: int, text: str, reason: str | None = None) -> None:
        super().__init__(number, text)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.strerror)


MISSING = FileNotFoundError(2, "No such file or directory")
EMPTY = FileError(9, "[SSL] PEM lib")


def test_files_that_can_not_be_read() -> None:
    said = "can't be read: No such file or directory"
    assert load(create=MISSING) == f"[Errno 2] ca_certs 'ca' {said}"
    assert load(chain=MISSING, verify=MISSING) == f"[Errno 2] certfile 'cert' {said}"
    assert load(chain=MISSING) == f"[Errno 2] keyfile 'key' {said}"
    assert load(chain=PermissionError(13, "Permission denied")) == (
        "[Errno 13] keyfile 'key' can't be read: Permission denied"
    )


def test_files_without_what_they_should_have() -> None:
    none = FileError(9, "[X509: …]", "NO_CERTIFICATE_OR_CRL_FOUND")
    assert load(create=none) == "ca_certs 'ca' has no certificate in PEM form"
    assert load(chain=EMPTY, verify=none) == "certfile 'cert' has no certificate in PEM form"
    assert load(chain=EMPTY) == "keyfile 'key' has no private key in PEM form"
    assert load(chain=EMPTY, key=None) == "certfile 'cert' has no private key in PEM form"


def test_files_that_something_else_is_wrong_with() -> None:
    other = FileError(9, "[SSL: EE_KEY_TOO_SMALL] ee key too small", "EE_KEY_TOO_SMALL")
    assert load(create=other) == f"ca_certs 'ca': {other}"
    assert load(chain=other) == f"certfile 'cert', keyfile 'key': {other}"
    assert load(chain=other, key=None) == f"certfile 'cert': {other}"


@pytest.mark.parametrize("reason", ["KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"])
def test_a_key_that_is_not_the_certificates(reason: str) -> None:
    said = load(chain=FileError(9, "", reason))
    assert said == "the key in keyfile 'key' is not that of the certificate in certfile 'cert'"


def test_nobody_is_asked_for_a_passphrase() -> None:
    assert load(chain=True) == (
        "the key in keyfile 'key' is encrypted, and its passphrase is not asked for; "
        "an ssl_context can be made with it"
    )


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
    assert check_context(None, never) is None
    assert check_context(context, Ssl) is context
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not 'ca'"):
        check_context("ca", Ssl)
    context.protocol = Ssl.PROTOCOL_TLS_CLIENT
    with pytest.raises(ValueError, match="ssl_context is for clients"):
        check_context(context, Ssl)
