"""Which servers are spoken to in TLS, with which context, and what it means when that fails.

And which context a server may have.

This library's core does not import `ssl`: an adapter passes a function that does, which is called
where TLS is used, as that module takes long to load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

from .address import ServerAddress, parse_host_list
from .errors import ConnectionError
from .records import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .address import HostSpec

# What an `ssl.SSLError` has as its `reason` where no TLS has come from the server: the end of the
# stream, or other bytes, which versions of OpenSSL name differently.
_NO_TLS: Final = (
    "UNEXPECTED_EOF_WHILE_READING",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
    "WRONG_VERSION_NUMBER",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
)
_QUESTION: Final = "does this server speak TLS?"
# The same of a key that is not its certificate's: of another pair, and of another kind.
_MISMATCH: Final = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
# And of a file without what is looked for in it; None is what a bad or missing PEM block gives.
_NOTHING_IN_IT: Final = (None, "NO_CERTIFICATE_OR_CRL_FOUND")

C_ = TypeVar("C_")
C_co = TypeVar("C_co", covariant=True)


class Ssl(Protocol[C_co]):
    """What is needed of the module `ssl`."""

    @property
    def SSLContext(self) -> type[C_co]:  # noqa: N802 - its name there
        """The class of contexts."""

    @property
    def PROTOCOL_TLS_CLIENT(self) -> object:  # noqa: N802 - its name there
        """What contexts for clients have as their `protocol`."""

    @property
    def create_default_context(self) -> Callable[..., Any]:
        """Makes a context that verifies the server."""


def parse_servers(
    host_list: Iterable[HostSpec] | None, ssl_context: object | None
) -> list[ServerAddress]:
    """Return the addresses in `host_list`.

    `ssl_context` is for those that have no TLS of their own. Raises what `parse_host_list` does.
    """
    addresses = parse_host_list(host_list)
    if ssl_context is None:
        return addresses
    return [
        address if address.uses_tls else replaced(address, ssl_context=ssl_context)
        for address in addresses
    ]


def make_contexts(
    addresses: Iterable[ServerAddress], load_ssl: Callable[[], Ssl[C_]]
) -> dict[ServerAddress, C_]:
    """Return the contexts of those of `addresses` that use TLS.

    Args:
        addresses: Servers.
        load_ssl: Imports that module; not called if none of them uses TLS.

    Raises:
        OSError: A file of keys or certificates can't be read, or does not hold what it should
            (`ssl.SSLError`).
        TypeError: An ssl_context is none.
    """
    tls = [address for address in addresses if address.uses_tls]
    if not tls:
        return {}
    ssl = load_ssl()
    return {address: _make_context(address, ssl) for address in tls}


def check_context(context: object | None, load_ssl: Callable[[], Ssl[C_]]) -> C_ | None:
    """Return `context`, which a job server is to have; None is no TLS.

    Args:
        context: An argument of the application's.
        load_ssl: Imports that module; not called if there is no context.

    Raises:
        TypeError: It is none.
        ValueError: It is for clients, so that every handshake would fail.
    """
    if context is None:
        return None
    ssl = load_ssl()
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {context!r}")
    if getattr(context, "protocol", None) == ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "ssl_context is for clients; ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) makes "
            "one for servers"
        )
    return context


def _make_context(address: ServerAddress, ssl: Ssl[C_]) -> C_:
    """Return the context that `address` has, or one that verifies the server."""
    if address.ssl_context is not None:
        if not isinstance(address.ssl_context, ssl.SSLContext):
            raise TypeError(f"ssl_context is an ssl.SSLContext, not {address.ssl_context!r}")
        return address.ssl_context
    made: C_ = load_context(
        ssl.create_default_context, address.ca_certs, address.certfile, address.keyfile
    )
    return made


class FileNames(NamedTuple):
    """What errors call the files."""

    ca_certs: str = "ca_certs"
    certfile: str = "certfile"
    keyfile: str = "keyfile"
    #: What can be done about a key that is encrypted.
    way_out: str = "; an ssl_context can be made with it"


_NAMES: Final = FileNames()


def load_context(
    create: Callable[..., Any],
    ca_certs: str | None,
    certfile: str | None,
    keyfile: str | None,
    names: FileNames = _NAMES,
) -> Any:
    """Return a context with what these files hold. Nobody is asked for a passphrase.

    Args:
        create: Makes a context: `ssl.create_default_context`, or what calls it.
        ca_certs: The certificates that the other side's is verified with.
        certfile: The own certificate.
        keyfile: Its key, if it is in a file of its own.
        names: What errors call them.

    Raises:
        OSError: One can't be read, or (`ssl.SSLError`) does not hold what it should. It says which
            one, and what is wrong with it.
    """
    try:
        context = create(cafile=ca_certs)
    except OSError as error:
        _raise_about(_quoted(names.ca_certs, ca_certs), "certificate", error)
    if certfile is None:
        return context
    certificate = _quoted(names.certfile, certfile)
    key = certificate if keyfile is None else _quoted(names.keyfile, keyfile)
    encrypted = OSError(
        f"the key in {key} is encrypted, and its passphrase is not asked for{names.way_out}"
    )

    def ask_nobody() -> NoReturn:
        raise encrypted

    try:
        context.load_cert_chain(certfile, keyfile, ask_nobody)
    except OSError as error:
        if error is encrypted:
            raise
        # Which of the files it is about can't be seen, but certificates can be read by themselves.
        try:
            context.load_verify_locations(certfile)
        except OSError as about_certificate:
            _raise_about(certificate, "certificate", about_certificate)
        why = getattr(error, "reason", None)
        if why in _MISMATCH:
            what = f"the key in {key} is not that of the certificate in {certificate}"
            raise type(error)(error.errno, what) from None
        if why in _NOTHING_IN_IT:
            _raise_about(key, "private key", error)
        _raise_about(key if keyfile is None else f"{certificate}, {key}", "", error)
    return context


def _quoted(name: str, path: str | None) -> str:
    return f"{name} {path!r}"


def _raise_about(file: str, what: str, error: OSError) -> NoReturn:
    """Raise an error like `error` that names the file, in which `what` was looked for."""
    if not hasattr(error, "reason"):  # It is the system's.
        raise OSError(error.errno, f"{file} can't be read: {error.strerror}") from None
    if error.reason in _NOTHING_IN_IT:
        raise type(error)(error.errno, f"{file} has no {what} in PEM form") from None
    raise type(error)(error.errno, f"{file}: {error}") from None


def handshake_failure(error: Exception) -> Exception:
    """Return what to say of `error`, which has ended a handshake.

    gearmand and others that speak no TLS take the client's first record for something else, and
    close the connection or answer that, so the error by itself tells little. Where the server has
    answered in TLS, by an alert or by a certificate that can't be verified, `error` says what is
    wrong.
    """
    if not isinstance(error, OSError):
        return error
    why = getattr(error, "reason", None)
    if why is not None and why not in _NO_TLS:
        return error
    what = "the connection was closed" if why == _NO_TLS[0] else error
    return ConnectionError(f"{what} during the TLS handshake; {_QUESTION}")


def connect_timeout(address: ServerAddress, seconds: float) -> TimeoutError:
    """Return the error of a connection that was not open in time.

    A server that waits for more of what it does not take for TLS ends a handshake like that.
    """
    error = f"no connection within {seconds:g} seconds"
    return TimeoutError(
        f"{error}, including the TLS handshake; {_QUESTION}" if address.uses_tls else error
    )
