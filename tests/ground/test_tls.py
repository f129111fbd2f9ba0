"""Selection and checks of TLS contexts, and errors of TLS."""

from __future__ import annotations

import ssl
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
from tests.support import encrypted, make_certificates

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of invalid files, with valid ones for `client`."""
    directory = make_certificates(tmp_path_factory.mktemp("files"))
    certificate = (directory / "client.pem").read_text()
    (directory / "empty").touch()
    (directory / "text").write_text("a certificate, or a key")
    (directory / "cut short").write_text(certificate[:200])
    (directory / "both").write_text(certificate + (directory / "server.key").read_text())
    encrypted(directory / "client.key", directory)
    return directory


def real() -> Any:
    return ssl


def never() -> Any:
    raise AssertionError("ssl is loaded where there is no TLS")


# Contexts.


def test_common_context_is_for_servers_without_settings_of_their_own() -> None:
    plain, own = ServerAddress("one"), ServerAddress("two", ca_certs="ca")
    hosts: list[Any] = ["one", {"host": "two", "ca_certs": "ca"}]
    assert parse_servers(hosts, None) == [plain, own]
    assert parse_servers(hosts, "all") == [ServerAddress("one", ssl_context="all"), own]


def test_make_contexts_selects_a_context_per_address(directory: Path) -> None:
    own = ssl.create_default_context()
    given, verified, known = tls = [
        ServerAddress("two", ssl_context=own),
        ServerAddress("three", ca_certs=str(directory / "ca.pem")),
        ServerAddress(
            "four", certfile=str(directory / "client.pem"), keyfile=str(directory / "client.key")
        ),
    ]
    contexts = make_contexts([ServerAddress("one"), *tls], real)
    assert contexts.keys() == {given, verified, known}
    assert contexts[given] is own
    assert len(contexts[verified].get_ca_certs()) == 1


def test_ssl_is_not_loaded_without_tls() -> None:
    assert make_contexts([ServerAddress("one")], never) == {}
    assert check_context(None, never) is None


def test_context_that_cannot_be_used_raises() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    assert check_context(context, real) is context
    for check in (
        lambda: check_context("ca", real),
        lambda: make_contexts([ServerAddress("one", ssl_context="ca")], real),
    ):
        with pytest.raises(TypeError, match=r"ssl_context is an ssl\.SSLContext, not 'ca'"):
            check()
    with pytest.raises(ValueError, match="ssl_context is for clients"):
        check_context(ssl.create_default_context(), real)


# Files. The errors depend on OpenSSL's reasons.

CERT = {"certfile": "client.pem"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"ca_certs": "none"}, "ca_certs '{}/none' can't be read: No such file or directory"),
        ({"certfile": "none"}, "certfile '{}/none' can't be read: No such file or directory"),
        ({**CERT, "keyfile": "none"}, "keyfile '{}/none' can't be read: No such file or directory"),
        ({"ca_certs": "text"}, "ca_certs '{}/text' has no certificate in PEM form"),
        ({"ca_certs": "cut short"}, "ca_certs '{}/cut short' has no certificate in PEM form"),
        ({"certfile": "empty"}, "certfile '{}/empty' has no certificate in PEM form"),
        (CERT, "certfile '{}/client.pem' has no private key in PEM form"),
        ({**CERT, "keyfile": "client.csr"}, "keyfile '{}/client.csr' has no private key in PEM "),
        ({"certfile": "both"}, "the key in certfile '{}/both' is not that of the certificate in "),
        ({**CERT, "keyfile": "server.key"}, "the key in keyfile '{}/server.key' is not that of "),
        # A prompt for the passphrase would block the program.
        ({**CERT, "keyfile": "encrypted.key"}, "the key in keyfile '{}/encrypted.key' is encrypt"),
    ],
    ids=str,
)
def test_file_without_its_key_or_certificate_is_named(
    directory: Path, files: dict[str, str], message: str
) -> None:
    paths: dict[str, Any] = {key: str(directory / name) for key, name in files.items()}
    with pytest.raises(OSError) as caught:
        make_contexts([ServerAddress("localhost", **paths)], real)
    assert message.format(directory) in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError) == ("none" in files.values())


class SslError(OSError):
    """A stand-in for `ssl.SSLError`, whose reason can't be chosen."""

    def __init__(self, reason: str | None, text: str = "") -> None:
        super().__init__(9, text or f"[SSL: {reason}]")
        self.reason = reason

    def __str__(self) -> str:
        return str(self.strerror)


class Refusing:
    """A context that refuses files for other reasons."""

    def __init__(self, cafile: str | None = None) -> None:
        if cafile is not None:
            raise SslError("EE_KEY_TOO_SMALL")

    def load_cert_chain(self, *args: object) -> None:
        raise SslError("EE_KEY_TOO_SMALL")

    def load_verify_locations(self, cafile: str) -> None:
        pass


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (("ca", None, None), "ca_certs 'ca'"),
        ((None, "cert", "key"), "certfile 'cert', keyfile 'key'"),
        ((None, "cert", None), "certfile 'cert'"),
    ],
)
def test_other_file_errors_name_the_files(files: tuple[str | None, ...], named: str) -> None:
    with pytest.raises(SslError, match=rf"^{named}: \[SSL: EE_KEY_TOO_SMALL\]$"):
        load_context(Refusing, *files)  # type: ignore[arg-type]


# Handshakes.


@pytest.mark.parametrize(
    "error",
    [
        *(SslError("WRONG_VERSION_NUMBER"), SslError("RECORD_LAYER_FAILURE"), SslError(None)),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
)
def test_handshake_with_a_server_without_tls(error: OSError) -> None:
    said = handshake_failure(error)
    assert isinstance(said, ConnectionError)
    assert str(said) == f"{error} during the TLS handshake; does this server speak TLS?"
    said = handshake_failure(SslError("UNEXPECTED_EOF_WHILE_READING"))
    assert str(said).startswith("the connection was closed during the TLS handshake; does")


@pytest.mark.parametrize(
    "error",
    [
        *(SslError("CERTIFICATE_VERIFY_FAILED"), SslError("TLSV1_ALERT_UNKNOWN_CA")),
        ValueError("server_hostname cannot be an empty string"),
    ],
)
def test_handshake_error_with_another_reason_is_kept(error: Exception) -> None:
    assert handshake_failure(error) is error


def test_no_connection_in_time() -> None:
    assert str(connect_timeout(ServerAddress("h"), 2.0)) == "no connection within 2 seconds"
    said = str(connect_timeout(ServerAddress("h", ca_certs="ca"), 0.5))
    assert said.startswith("no connection within 0.5 seconds, including the TLS handshake; does")
