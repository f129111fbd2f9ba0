"""TLS contexts for clients and servers, and clear errors for failed handshakes.

The core of this library does not import `ssl`, because that module is slow to import. Adapters pass
a function that imports it, which is called only if TLS is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

from .address import ServerAddress, parse_host_list
from .errors import ConnectionError
from .records import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .address import HostSpec

# Values of `ssl.SSLError.reason` if the server has not answered in TLS: the end of the stream, or
# other bytes. The names of the reasons depend on the version of OpenSSL.
_NO_TLS: Final = (
    "UNEXPECTED_EOF_WHILE_READING",
    "RECORD_LAYER_FAILURE",
    "UNKNOWN_PROTOCOL",
    "WRONG_VERSION_NUMBER",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
)
_QUESTION: Final = "does this server speak TLS?"
# Values of `reason` if the key does not match the certificate: from another pair, or of another
# type.
_MISMATCH: Final = ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
# Values of `reason` if a file has no key or certificate. A bad or missing PEM block gives None.
_NOTHING_IN_IT: Final = (None, "NO_CERTIFICATE_OR_CRL_FOUND")

C_ = TypeVar("C_")
C_co = TypeVar("C_co", covariant=True)


class Ssl(Protocol[C_co]):
    """The parts of the module `ssl` that this module uses."""

    @property
    def SSLContext(self) -> type[C_co]:  # noqa: N802 - its name there
        """The class of contexts."""

    @property
    def PROTOCOL_TLS_CLIENT(self) -> object:  # noqa: N802 - its name there
        """The `protocol` of contexts for clients."""

    @property
    def create_default_context(self) -> Callable[..., Any]:
        """The factory of contexts that verify the server."""


def parse_servers(
    host_list: Iterable[HostSpec] | None, ssl_context: object | None
) -> list[ServerAddress]:
    """Parse the addresses in `host_list`.

    Args:
        host_list: As for `parse_host_list`.
        ssl_context: The context for addresses without TLS settings of their own, or None.

    Raises:
        TypeError, ValueError: As in `parse_host_list`.
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
    """Return the contexts of all addresses that use TLS.

    Args:
        addresses: The servers' addresses.
        load_ssl: A function that imports `ssl`. It is called only if an address uses TLS.

    Raises:
        OSError: A file of keys or certificates can't be read, or has the wrong content
            (`ssl.SSLError`).
        TypeError: An `ssl_context` is not an `ssl.SSLContext`.
    """
    tls = [address for address in addresses if address.uses_tls]
    if not tls:
        return {}
    ssl = load_ssl()
    return {address: _make_context(address, ssl) for address in tls}


def check_context(context: object | None, load_ssl: Callable[[], Ssl[C_]]) -> C_ | None:
    """Check the context of a job server, and return it.

    Args:
        context: The application's context. None means no TLS.
        load_ssl: A function that imports `ssl`. It is called only if `context` is not None.

    Raises:
        TypeError: `context` is not an `ssl.SSLContext`.
        ValueError: `context` is for clients, so every handshake would fail.
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
    """Return the context of `address`, or create one that verifies the server."""
    if address.ssl_context is not None:
        if not isinstance(address.ssl_context, ssl.SSLContext):
            raise TypeError(f"ssl_context is an ssl.SSLContext, not {address.ssl_context!r}")
        return address.ssl_context
    made: C_ = load_context(
        ssl.create_default_context, address.ca_certs, address.certfile, address.keyfile
    )
    return made


class FileNames(NamedTuple):
    """The names of the files in error messages."""

    ca_certs: str = "ca_certs"
    certfile: str = "certfile"
    keyfile: str = "keyfile"
    #: A hint for encrypted keys, which ends the error message.
    way_out: str = "; an ssl_context can be made with it"


_NAMES: Final = FileNames()


def load_context(
    create: Callable[..., Any],
    ca_certs: str | None,
    certfile: str | None,
    keyfile: str | None,
    names: FileNames = _NAMES,
) -> Any:
    """Create a context, and load these files without asking for a passphrase.

    Args:
        create: A function that creates the context: `ssl.create_default_context`, or a wrapper.
        ca_certs: The file of certificates to verify the peer's certificate with.
        certfile: The file of this side's certificate.
        keyfile: The file of the certificate's key, if it is not in `certfile`.
        names: The names of the files in error messages.

    Raises:
        OSError: A file can't be read, or has the wrong content (`ssl.SSLError`). The message names
            the file and the problem.
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
        # The error does not name the file. Load the certificate alone to see if it is the cause.
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
    """Raise an error like `error` that names the file and its expected content, `what`."""
    if not hasattr(error, "reason"):  # The error is the system's.
        raise OSError(error.errno, f"{file} can't be read: {error.strerror}") from None
    if error.reason in _NOTHING_IN_IT:
        raise type(error)(error.errno, f"{file} has no {what} in PEM form") from None
    raise type(error)(error.errno, f"{file}: {error}") from None


def handshake_failure(error: Exception) -> Exception:
    """Return the exception to report for `error`, which has ended a TLS handshake.

    A server without TLS, such as a plain gearmand, misreads the client's first record. It closes
    the connection or sends a plain reply, so `error` itself does not show the cause. If the server
    has answered in TLS, with an alert or with an untrusted certificate, `error` shows the cause.
    In that case, the function returns `error` unchanged.
    """
    if not isinstance(error, OSError):
        return error
    why = getattr(error, "reason", None)
    if why is not None and why not in _NO_TLS:
        return error
    what = "the connection was closed" if why == _NO_TLS[0] else error
    return ConnectionError(f"{what} during the TLS handshake; {_QUESTION}")


def connect_timeout(address: ServerAddress, seconds: float) -> TimeoutError:
    """Return the error for a connection that was not open in time.

    A server without TLS can cause such a timeout if it waits for more data from the client.
    """
    error = f"no connection within {seconds:g} seconds"
    return TimeoutError(
        f"{error}, including the TLS handshake; {_QUESTION}" if address.uses_tls else error
    )
