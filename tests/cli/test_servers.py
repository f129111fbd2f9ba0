"""The selection of servers: options, the environment, IPv6, TLS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import ServerAddress
from gearman_sync import JobServer
from gearman_sync.cli.options import find_servers
from tests.support import encrypted, eventually, make_certificates

from .support import DONE, NO_SERVER, USAGE, Result, Running, address_of, gearmanctl

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support import Gearmand, Stunnel

    from .support import Server


NOWHERE: Any = ("127.0.0.1", 1)


def test_environment_names_the_servers(launch: Callable[[], Server]) -> None:
    servers = launch(), launch()
    result = gearmanctl(
        "version", at=servers[0], GEARMAN_SERVERS=f"{address_of(NOWHERE)},what:ever"
    )
    assert (result.status, result.errors, len(result.lines)) == (DONE, "", 1)
    names = ",".join(map(address_of, servers))
    result = gearmanctl("ping", GEARMAN_SERVERS=names)
    assert (result.status, result.errors) == (DONE, "")
    assert [line.split("\t")[0] for line in result.lines] == [*map(address_of, servers)]


def test_invalid_environment_is_a_usage_error() -> None:
    assert gearmanctl("status", GEARMAN_SERVERS="a:1,b:c") == Result(
        USAGE, b"", "gearmanctl: 'c' is not a port\n"
    )


def test_default_server_is_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [ServerAddress("localhost", 4730)]
    monkeypatch.delenv("GEARMAN_SERVERS", raising=False)
    assert find_servers(None) == expected
    for names in ("", " ", ","):
        monkeypatch.setenv("GEARMAN_SERVERS", names)
        assert find_servers(None) == expected
    for between in (",", " ", ", ", "\n", ",,"):
        monkeypatch.setenv("GEARMAN_SERVERS", f"one{between}two:1")
        assert find_servers(None) == [ServerAddress("one", 4730), ServerAddress("two", 1)]
    assert find_servers(["three"]) == [ServerAddress("three", 4730)]


def test_ipv6_address_is_accepted(start: Callable[..., Running], task: str) -> None:
    with JobServer(host="::1") as server:
        address = (server.address.host, server.address.port)
        start("work", task, "--", "rev", at=address)
        eventually(lambda: gearmanctl("check", task, at=address).status == DONE, "the worker")
        assert gearmanctl("submit", task, "ab", at=address) == Result(DONE, b"ba", "")
        result = gearmanctl("status", GEARMAN_SERVERS=f"[::1]:{address[1]}")
        assert result == Result(DONE, f"{task}\t0\t0\t1\n".encode(), "")


def test_unknown_host_is_reported() -> None:
    result = gearmanctl("status", "--server", "nowhere.invalid")
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert "nowhere.invalid:4730" in result.error


# TLS.


@pytest.fixture
def tunnel(tls_tunnel: Stunnel) -> tuple[str, int]:
    """The address of a gearmand with TLS."""
    return "localhost", tls_tunnel.port


@pytest.fixture
def tls(tls_certificates: Path) -> list[str]:
    """The correct options."""
    return [
        *("--tls-ca", str(tls_certificates / "ca.pem")),
        *("--tls-cert", str(tls_certificates / "client.pem")),
        *("--tls-key", str(tls_certificates / "client.key")),
    ]


def test_tls_options_connect(
    gearmand: Gearmand,
    tunnel: tuple[str, int],
    tls: list[str],
    start: Callable[..., Running],
    task: str,
) -> None:
    start("work", task, *tls, "--", "rev", at=tunnel)
    eventually(lambda: gearmanctl("check", task, *tls, at=tunnel).status == DONE, "the worker")
    data = b"ab" * 100_000
    result = gearmanctl("submit", task, *tls, at=tunnel, data=data)
    assert result == Result(DONE, data[::-1], "")
    result = gearmanctl("status", *tls, at=tunnel)
    assert (result.status, result.errors) == (DONE, "")
    assert f"{task}\t0\t0\t1" in result.lines


def test_untrusted_server_is_refused(
    tunnel: tuple[str, int], tls: list[str], tmp_path: Path
) -> None:
    other = make_certificates(tmp_path) / "ca.pem"
    for ca, words in (
        (["--tls"], ["submit", "task", "data"]),
        (["--tls-ca", str(other)], ["status"]),
        (["--tls-ca", str(other)], ["work", "task", "--", "cat"]),
    ):
        result = gearmanctl(words[0], *ca, *tls[2:], *words[1:], at=tunnel)
        assert (result.status, result.output) == (NO_SERVER, b"")
        assert "certificate verify failed" in result.errors
        assert "Traceback" not in result.errors


@pytest.mark.parametrize("option", ["--tls-ca", "--tls-cert", "--tls-key"])
def test_wrong_tls_file_is_reported(tls: list[str], tmp_path: Path, option: str) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("this is no certificate")
    tls[tls.index(option) + 1] = str(wrong)
    result = gearmanctl("status", *tls, at=NOWHERE)
    assert (result.status, result.output) == (USAGE, b"")
    assert f"{option} '{wrong}' has no " in result.error


def test_encrypted_key_is_refused_without_a_prompt(tls: list[str], tmp_path: Path) -> None:
    """gearmanctl never asks for a passphrase, not even on a terminal."""
    key = encrypted(Path(tls[5]), tmp_path)
    result = gearmanctl("status", *tls[:-1], str(key), at=NOWHERE)
    assert (result.status, result.output) == (USAGE, b"")
    assert result.error == (
        f"the key in --tls-key '{key}' is encrypted, and its passphrase is not asked for"
    )
