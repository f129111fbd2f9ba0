"""Server addresses: their accepted forms, and the parsed ServerAddress."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from .constants import DEFAULT_GEARMAN_PORT
from .records import hidden, record, values_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: ``"host"``, ``"host:port"``, ``"[::1]:4730"``, ``("host", port)``, a dict with ``host``,
#: ``port``, the TLS keys and the keepalive keys, or a ServerAddress.
HostSpec: TypeAlias = (
    "str | bytes | tuple[str | bytes, int | str] | Mapping[str, Any] | ServerAddress"
)

_TLS_KEYS: Final = ("keyfile", "certfile", "ca_certs", "ssl_context")
_KEEPALIVE_KEYS: Final = ("keepalive", "keepidle", "keepintvl", "keepcnt")
_MAX_HOST_SIZE: Final = 253
# Minimum number of digits of a presumed port after an IPv6 address without brackets.
_PORT_DIGITS: Final = 4
# Maximum values of Linux (MAX_TCP_KEEPIDLE and so on in its net/tcp.h).
_MOST: Final = {"keepidle": 32767, "keepintvl": 32767, "keepcnt": 127}


class HostAndPort(NamedTuple):
    """The host and port of a server. ``str()`` returns ``host:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@record(frozen=True)
class ServerAddress:
    """The host and port of a server, with its TLS and keepalive settings.

    With the default settings, the client's system detects a vanished server after 60 seconds. See
    `keepalive`.

    Attributes:
        host: A name or an IP address, without brackets.
        port: The TCP port.
        keyfile: Path of the client's private key.
        certfile: Path of the client's certificate.
        ca_certs: Path of the certificates to verify the server's certificate with.
        ssl_context: An `ssl.SSLContext`, in place of the three paths.
        keepalive: If true, the client's system sends keepalive probes on an idle connection.
        keepidle: Seconds without data before the first probe, 1 to 32767.
        keepintvl: Seconds between two probes, 1 to 32767.
        keepcnt: Number of unanswered probes before the system closes the connection, 1 to 127.

    Raises:
        TypeError: A keepalive attribute has the wrong type.
        ValueError: A keepalive attribute is out of its range.
    """

    host: str
    port: int = DEFAULT_GEARMAN_PORT
    keyfile: str | None = None
    certfile: str | None = None
    ca_certs: str | None = None
    ssl_context: Any = hidden(default=None)
    keepalive: bool = True
    keepidle: int = 30
    keepintvl: int = 10
    keepcnt: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.keepalive, bool):
            raise TypeError(f"keepalive is True, False or None, not {self.keepalive!r}")
        for key, most in _MOST.items():
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{key} is a whole number, not {value!r}")
            if not 1 <= value <= most:
                raise ValueError(f"{key} is {value}: it must be from 1 to {most}")

    def __copy__(self) -> ServerAddress:
        return self

    def __deepcopy__(self, memo: object) -> ServerAddress:
        return self  # An address is immutable, and an `ssl_context` can't be copied.

    def __reduce__(self) -> tuple[Any, ...]:
        if self.ssl_context is not None:
            raise TypeError(
                f"the address {self} has an ssl_context, which can't be pickled: give the server "
                "as a dict with keyfile, certfile and ca_certs, or set the request's connection "
                "to None"
            )
        return type(self), values_of(self.__match_args__)(self)

    @property
    def uses_tls(self) -> bool:
        """True if any of the TLS attributes is set."""
        return any(getattr(self, key) is not None for key in _TLS_KEYS)

    def __str__(self) -> str:
        return str(HostAndPort(self.host, self.port))


def parse_address(spec: HostSpec) -> ServerAddress:
    """Parse the address in `spec`.

    Raises:
        TypeError: `spec` has none of the accepted forms.
        ValueError: `spec` is not a valid address of a server.
    """
    if isinstance(spec, ServerAddress):
        _host(_text(spec.host))
        _port(spec.port)
        return spec
    if isinstance(spec, (str, bytes)):
        host, port = _split(_text(spec))
        return ServerAddress(_host(host), _port(port))
    if isinstance(spec, (tuple, list)):
        if len(spec) != 2:
            raise TypeError(f"a server's address as a tuple is (host, port), not {spec!r}")
        return ServerAddress(_host(_text(spec[0])), _port(spec[1]))
    if hasattr(spec, "keys"):
        return _from_mapping(spec)
    raise TypeError(f"a server's address is a str, a (host, port) tuple or a dict, not {spec!r}")


def parse_host_list(host_list: Iterable[HostSpec] | None) -> list[ServerAddress]:
    """Parse the addresses in `host_list`, and drop duplicates. None means the local host.

    Raises:
        TypeError: `host_list` is not a list of addresses.
        ValueError: An item is not a valid address of a server.
    """
    if host_list is None:
        host_list = ["localhost"]
    if _is_one(host_list):
        one = tuple(host_list) if isinstance(host_list, (tuple, list)) else host_list
        raise TypeError(f"host_list is a list of servers, not {host_list!r}: [{one!r}]?")
    if not isinstance(host_list, Iterable):
        raise TypeError(f"host_list is a list of servers, not {host_list!r}")
    return list(dict.fromkeys(parse_address(spec) for spec in host_list))


def _is_one(host_list: object) -> bool:
    """Return True if `host_list` is a single server instead of a list of servers."""
    if isinstance(host_list, (tuple, list)):
        if len(host_list) != 2 or not isinstance(host_list[0], (str, bytes)):
            return False
        port = host_list[1]
        # In a list, a str of digits can also be a host. In a tuple, treat it as a port.
        is_digits = isinstance(port, (str, bytes)) and port.isdigit()
        return isinstance(port, int) or (is_digits and isinstance(host_list, tuple))
    return isinstance(host_list, (str, bytes, ServerAddress)) or hasattr(host_list, "keys")


def _from_mapping(spec: Mapping[str, Any]) -> ServerAddress:
    unknown = sorted(set(spec) - {"host", "port", *_TLS_KEYS, *_KEEPALIVE_KEYS}, key=repr)
    if unknown:
        raise ValueError(f"a server's dict has no key {unknown[0]!r}")
    if "host" not in spec:
        raise ValueError(f"no host in {dict(spec)!r}")
    tls = {key: spec[key] for key in _TLS_KEYS if spec.get(key) is not None}
    if tls.get("ssl_context") is not None and len(tls) > 1:
        raise ValueError("ssl_context stands in place of keyfile, certfile and ca_certs")
    if "keyfile" in tls and "certfile" not in tls:
        raise ValueError("a keyfile needs its certfile")
    keeping = {key: spec[key] for key in _KEEPALIVE_KEYS if spec.get(key) is not None}
    port = _port(DEFAULT_GEARMAN_PORT if spec.get("port") is None else spec["port"])
    return ServerAddress(_host(_text(spec["host"])), port, **tls, **keeping)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        return value
    raise TypeError(f"a host is a str, not {value!r}")


def _split(spec: str) -> tuple[str, int | str]:
    if "://" in spec:
        raise ValueError(f"a server is HOST:PORT, not a URL like {spec!r}")
    if spec.startswith("["):
        host, bracket, rest = spec[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or not _is_ipv6(host):
            raise ValueError(f"{spec!r} is not [IPv6 address]:port")
        return host, rest[1:] if rest else DEFAULT_GEARMAN_PORT
    if spec.count(":") == 1:
        host, _, port = spec.partition(":")
        return host, port
    # A bare IPv6 address has several colons and no port. Reject ::1:4730. It is a valid address,
    # but the author probably meant port 4730.
    host, _, port = spec.rpartition(":")
    if port.isdigit() and len(port) >= _PORT_DIGITS and _is_ipv6(host):
        raise ValueError(
            f"{spec!r} has no brackets: with a port it is '[{host}]:{port}', without '[{spec}]'"
        )
    return spec, DEFAULT_GEARMAN_PORT


def _is_ipv6(host: str) -> bool:
    # Import `ipaddress` here, because few programs need it.
    import ipaddress  # noqa: PLC0415

    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or len(host) > _MAX_HOST_SIZE or not host.isprintable() or set(host) & set(" /[]@"):
        raise ValueError(f"{host!r} can't be a host")
    if ":" in host:
        if not _is_ipv6(host):
            raise ValueError(f"{host!r} is no IPv6 address, and a host has no colon")
    else:
        try:
            host.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"{host!r} can't be a host: {error}") from None
    return host


def _port(port: object) -> int:
    if isinstance(port, str) and port.isascii() and port.isdigit() and len(port) <= 5:
        port = int(port)
    if not isinstance(port, int) or isinstance(port, bool):
        error = ValueError if isinstance(port, str) else TypeError
        raise error(f"{port!r} is not a port")
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return port
