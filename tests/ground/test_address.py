"""Addresses: every valid form is parsed, and invalid ones are refused at once."""

from __future__ import annotations

import copy
import pickle
import re
import ssl
from typing import Any

import pytest

from gearman_proto.address import HostAndPort, ServerAddress, parse_address, parse_host_list


@pytest.mark.parametrize(
    ("spec", "host", "port"),
    [
        ("example.org", "example.org", 4730),
        ("example.org:1", "example.org", 1),
        (b"example.org:65535", "example.org", 65535),
        ("::1", "::1", 4730),
        ("2001:db8::1:10", "2001:db8::1:10", 4730),
        ("fe80::1%eth0", "fe80::1%eth0", 4730),
        ("1:2:3:4:5:6:7:4730", "1:2:3:4:5:6:7:4730", 4730),
        ("[::1:4730]", "::1:4730", 4730),
        ("[::1]", "::1", 4730),
        ("[::1]:4731", "::1", 4731),
        (("example.org", 5), "example.org", 5),
        (["example.org", "5"], "example.org", 5),
        (("[::1]", 5), "::1", 5),
        ((b"h", 5), "h", 5),
        ({"host": "h", "port": None}, "h", 4730),
        ({"host": "h", "port": "77"}, "h", 77),
        ("bücher.example", "bücher.example", 4730),
        (ServerAddress("h", 7), "h", 7),
    ],
)
def test_forms(spec: Any, host: str, port: int) -> None:
    address = parse_address(spec)
    assert (address.host, address.port) == (host, port)
    assert not address.uses_tls


IMPOSSIBLE_VALUES: list[Any] = [
    *("", "a b", "a/b", "user@h", "a\0b", "a\nb", "a..b", "a" * 64, "a" * 254),
    *(":4730", "h:", "h:x", "h:0", "h:65536", "h:-1", "h:123456", "h:٣"),
    *("[::1", "[::1]x", "[h]:1", "[a:b]:1", "a:b:c", "::1:47300"),
    *(("a:b", 1), ("h", 0), ("h", ""), ("", 1)),
    *(ServerAddress(""), ServerAddress("a b"), ServerAddress("h", 0)),
    *({"host": "a:b"}, {}, {"port": 1}, {"host": "h", "prot": 1}, {"host": "h", "prot": 1, 7: 7}),
    {"host": "h", "keyfile": "k"},
    {"host": "h", "keyfile": "k", "certfile": "c", "ssl_context": object()},
    {"host": "h", "keepintvl": -1},
    {"host": "h", "keepidle": 32768, "keepalive": False},
]
IMPOSSIBLE_TYPES: list[Any] = [
    *(None, 7, ("h",), ("h", 1, 2), (7, 1), ("h", None), ("h", 1.5), ("h", True)),
    *(ServerAddress(None), ServerAddress("h", None)),  # type: ignore[arg-type]
    *({"host": None}, {"host": "h", "port": []}, {"host": "h", "keepalive": 1}),
    *({"host": "h", "keepintvl": 1.5}, {"host": "h", "keepcnt": True}),
]


@pytest.mark.parametrize(
    ("error", "spec"),
    [
        *[(ValueError, spec) for spec in IMPOSSIBLE_VALUES],
        *[(TypeError, spec) for spec in IMPOSSIBLE_TYPES],
    ],
)
def test_impossible_address_raises(error: type[Exception], spec: Any) -> None:
    with pytest.raises(error):
        parse_address(spec)


@pytest.mark.parametrize("spec", ["tcp://localhost:4730", b"gearman://h"])
def test_url_raises_with_the_right_form(spec: Any) -> None:
    with pytest.raises(ValueError, match=r"^a server is HOST:PORT, not a URL like '\w+://"):
        parse_address(spec)


def test_settings_are_parsed() -> None:
    address = parse_address({"host": "h", "certfile": "c", "keyfile": "k", "ca_certs": "a"})
    assert address == ServerAddress("h", 4730, "k", "c", "a")
    assert address.uses_tls
    context = object()
    address = parse_address({"host": "h", "ssl_context": context, "keyfile": None})
    assert address.ssl_context is context
    assert address.uses_tls
    assert "object" not in repr(address)
    none: dict[str, Any] = dict.fromkeys(("keepalive", "keepidle", "keepintvl", "keepcnt"))
    assert parse_address({"host": "h", **none}) == ServerAddress("h")
    probes: dict[str, Any] = {"keepalive": False, "keepidle": 5, "keepintvl": 2, "keepcnt": 4}
    assert parse_address({"host": "h", **probes}) == ServerAddress("h", **probes)


def test_wrong_keepalive_setting_is_named() -> None:
    with pytest.raises(ValueError, match="keepcnt is 128: it must be from 1 to 127"):
        parse_address({"host": "h", "keepcnt": 128})
    with pytest.raises(TypeError, match="keepidle is a whole number, not '30'"):
        parse_address({"host": "h", "keepidle": "30"})


def test_address_as_text_can_be_parsed() -> None:
    assert str(ServerAddress("h", 7)) == "h:7"
    assert str(ServerAddress("::1", 7)) == "[::1]:7"
    assert parse_address(str(ServerAddress("::1", 7))) == ServerAddress("::1", 7)


def test_host_list_keeps_the_order_without_duplicates() -> None:
    assert parse_host_list(None) == [ServerAddress("localhost")]
    assert parse_host_list([]) == []
    assert parse_host_list(["b", ("a", 1), {"host": "b"}, "a:1"]) == [
        ServerAddress("b"),
        ServerAddress("a", 1),
    ]


@pytest.mark.parametrize("spec", ["::1:4730", b"::1:4730", "fe80::1:2:4730"])
def test_ipv6_address_with_a_port_needs_brackets(spec: Any) -> None:
    """Refuse this form, although it is a valid IPv6 address, since its author meant a port."""
    host = (spec if isinstance(spec, str) else spec.decode()).removesuffix(":4730")
    expected = f"'{host}:4730' has no brackets: with a port it is '[{host}]:4730', without "
    with pytest.raises(ValueError, match=re.escape(expected + f"'[{host}:4730]'")):
        parse_address(spec)
    assert parse_address(f"[{host}]:4730") == ServerAddress(host, 4730)


@pytest.mark.parametrize(
    ("hosts", "hint"),
    [
        (("localhost", 4730), "[('localhost', 4730)]"),
        ((b"localhost", "4730"), "[(b'localhost', '4730')]"),
        (HostAndPort("localhost", 4730), "[('localhost', 4730)]"),
        ("localhost:4730", "['localhost:4730']"),
        ({"host": "localhost"}, "[{'host': 'localhost'}]"),
        (ServerAddress("localhost"), f"[{ServerAddress('localhost')!r}]"),
    ],
)
def test_single_server_as_host_list_raises_with_a_hint(hosts: Any, hint: str) -> None:
    with pytest.raises(TypeError) as caught:
        parse_host_list(hosts)
    assert str(caught.value) == f"host_list is a list of servers, not {hosts!r}: {hint}?"
    other: Any = 7
    with pytest.raises(TypeError, match=r"host_list is a list of servers, not 7$"):
        parse_host_list(other)


def test_two_servers_like_a_host_and_port_are_parsed() -> None:
    assert parse_host_list(("a", "b")) == [ServerAddress("a"), ServerAddress("b")]
    assert parse_host_list([("a", 1), "b"]) == [ServerAddress("a", 1), ServerAddress("b")]
    assert parse_host_list(["a", "1"]) == [ServerAddress("a"), ServerAddress("1")]


def test_address_is_pickled_unless_it_has_an_ssl_context() -> None:
    """Refuse to pickle the context, without which the address would mean a plain connection."""
    plain = ServerAddress("h", 1, "key", "cert", "ca", keepidle=7)
    assert pickle.loads(pickle.dumps(plain)) == plain
    address = ServerAddress("localhost", ssl_context=ssl.create_default_context())
    assert copy.copy(address) is copy.deepcopy(address) is address
    with pytest.raises(TypeError, match="localhost:4730 has an ssl_context, which can't"):
        pickle.dumps(address)
