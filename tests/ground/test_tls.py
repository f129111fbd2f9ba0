"""Selection and checks of TLS contexts, and errors of TLS, with a stand-in for `ssl`."""

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


def test_common_context_is_a_default() -> None:
    """Use the common context only for servers without their own settings."""
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


def test_make_contexts_selects_a_context_per_address() -> None:
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


def test_ssl_is_not_loaded_without_tls() -> None:
    assert make_contexts([ServerAddress("one")], never) == {}


def test_context_of_another_type_raises() -> None:
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not 'ca'"):
        make_contexts([ServerAddress("one", ssl_context="ca")], Ssl)


class SslError(OSError):
    """A stand-in for `ssl.SSLError`."""

    def __init__(self, reason: str | None, text: str = "") -> None:
        super().__init__(9, text or f"[SSL: {reason}]")
        self.reason = reason

    def __str__(self) -> str:
        return str(self.strerror)


def load(
    *, create: Any = None, chain: Any = None, verify: Any = None, key: str | None = "key"
) -> str:
    """Return the error message of `load_context` if a call raises or asks for a passphrase."""

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


MISSING = FileNotFoundError(2, "No such file or directory")
EMPTY = SslError(None, "[SSL] PEM lib")


def test_unreadable_file_is_named() -> None:
    said = "can't be read: No such file or directory"
    assert load(create=MISSING) == f"[Errno 2] ca_certs 'ca' {said}"
    assert load(chain=MISSING, verify=MISSING) == f"[Errno 2] certfile 'cert' {said}"
    assert load(chain=MISSING) == f"[Errno 2] keyfile 'key' {said}"
    assert load(chain=PermissionError(13, "Permission denied")) == (
        "[Errno 13] keyfile 'key' can't be read: Permission denied"
    )


def test_file_without_a_key_or_certificate_is_named() -> None:
    none = SslError("NO_CERTIFICATE_OR_CRL_FOUND")
    assert load(create=none) == "ca_certs 'ca' has no certificate in PEM form"
    assert load(chain=EMPTY, verify=none) == "certfile 'cert' has no certificate in PEM form"
    assert load(chain=EMPTY) == "keyfile 'key' has no private key in PEM form"
    assert load(chain=EMPTY, key=None) == "certfile 'cert' has no private key in PEM form"


def test_other_file_errors_name_the_files() -> None:
    other = SslError("EE_KEY_TOO_SMALL")
    assert load(create=other) == f"ca_certs 'ca': {other}"
    assert load(chain=other) == f"certfile 'cert', keyfile 'key': {other}"
    assert load(chain=other, key=None) == f"certfile 'cert': {other}"


@pytest.mark.parametrize("reason", ["KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"])
def test_key_of_another_certificate_is_named(reason: str) -> None:
    said = load(chain=SslError(reason))
    assert said == "the key in keyfile 'key' is not that of the certificate in certfile 'cert'"


def test_encrypted_key_raises_without_a_prompt() -> None:
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
def test_handshake_with_a_reply_other_than_tls(error: OSError) -> None:
    said = handshake_failure(error)
    assert isinstance(said, ConnectionError)
    assert str(said) == f"{error} during the TLS handshake; does this server speak TLS?"


def test_handshake_with_early_end_of_stream() -> None:
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
def test_handshake_error_with_another_reason_is_kept(error: Exception) -> None:
    assert handshake_failure(error) is error


def test_no_connection_in_time() -> None:
    assert str(connect_timeout(ServerAddress("h"), 2.0)) == "no connection within 2 seconds"
    said = str(connect_timeout(ServerAddress("h", ca_certs="ca"), 0.5))
    assert said.startswith("no connection within 0.5 seconds, including the TLS handshake; does")


def test_check_context_of_a_job_server() -> None:
    context = Context()
    assert check_context(None, never) is None
    assert check_context(context, Ssl) is context
    with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not 'ca'"):
        check_context("ca", Ssl)
    context.protocol = Ssl.PROTOCOL_TLS_CLIENT
    with pytest.raises(ValueError, match="ssl_context is for clients"):
        check_context(context, Ssl)
