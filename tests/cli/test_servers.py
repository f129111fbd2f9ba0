"""The selection of servers: options, the environment, IPv6, TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gearman_proto import ServerAddress
from gearman_sync import JobServer
from gearman_sync.cli.options import find_servers
from tests.support import Stunnel, encrypted, free_port, make_certificates

from .support import DONE, NO_SERVER, USAGE, Result, Running, address_of, gearmanctl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support import Gearmand

    from .support import Server


NOWHERE: Any = ("127.0.0.1", 1)


def test_environment_names_the_servers(launch: Callable[[], Server]) -> None:
    servers = launch(), launch()
    names = ",".join(map(address_of, servers))
    result = gearmanctl("ping", GEARMAN_SERVERS=names)
    assert (result.status, result.errors) == (DONE, "")
    assert [line.split("\t")[0] for line in result.lines] == [*map(address_of, servers)]


def test_options_override_the_environment(server: Server) -> None:
    result = gearmanctl("version", at=server, GEARMAN_SERVERS=f"{address_of(NOWHERE)},what:ever")
    assert (result.status, result.errors, len(result.lines)) == (DONE, "", 1)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("host:port", ("status",)),
        ("[::1", ("submit", "t", "d")),
        ("a:1,b:c", ("work", "t", "--", "cat")),
    ],
)
def test_invalid_environment_is_a_usage_error(names: str, words: tuple[str, ...]) -> None:
    result = gearmanctl(*words, GEARMAN_SERVERS=names)
    assert (result.status, result.output) == (USAGE, b"")
    assert result.error


@pytest.mark.parametrize(
    "words",
    [
        ("submit", "", "data"),
        ("submit", ""),
        ("submit", "", "--lines"),
        ("submit", "", "--background"),
        ("work", "", "--", "cat"),
        ("maxqueue", "", "1"),
    ],
    ids=" ".join,
)
def test_empty_function_is_refused_before_a_server_is_asked(words: tuple[str, ...]) -> None:
    result = gearmanctl(*words, at=NOWHERE)
    assert (result.status, result.output) == (USAGE, b"")
    assert result.error == (
        "Invalid value for 'TASK': the name of the function is empty; is a variable not set? "
        f"(see gearmanctl {words[0]} --help)"
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
        assert gearmanctl("submit", task, "ab", at=address) == Result(DONE, b"ba", "")
        result = gearmanctl("status", GEARMAN_SERVERS=f"[::1]:{address[1]}")
        assert result == Result(DONE, f"{task}\t0\t0\t1\n".encode(), "")


def test_unknown_host_is_reported() -> None:
    result = gearmanctl("status", "--server", "nowhere.invalid")
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert "nowhere.invalid:4730" in result.error


# TLS.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tunnel(certificates: Path, gearmand: Gearmand) -> Iterator[tuple[str, int]]:
    """The address of a gearmand with TLS."""
    program = Stunnel(certificates, gearmand)
    yield "localhost", program.port
    program.kill()


@pytest.fixture
def tls(certificates: Path) -> list[str]:
    """The correct options."""
    return [
        *("--tls-ca", str(certificates / "ca.pem")),
        *("--tls-cert", str(certificates / "client.pem")),
        *("--tls-key", str(certificates / "client.key")),
    ]


def test_tls_options_connect(
    gearmand: Gearmand,
    tunnel: tuple[str, int],
    tls: list[str],
    start: Callable[..., Running],
    task: str,
) -> None:
    start("work", task, *tls, "--", "rev", at=tunnel)
    data = b"ab" * 100_000
    result = gearmanctl("submit", task, *tls, at=tunnel, data=data)
    assert result == Result(DONE, data[::-1], "")
    result = gearmanctl("status", *tls, at=tunnel)
    assert (result.status, result.errors) == (DONE, "")
    assert f"{task}\t0\t0\t1" in result.lines


def test_certificate_and_key_in_one_file_connect(
    certificates: Path, tunnel: tuple[str, int], tls: list[str], tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(
        (certificates / "client.pem").read_bytes() + (certificates / "client.key").read_bytes()
    )
    assert gearmanctl("ping", *tls[:2], "--tls-cert", both, at=tunnel).status == DONE


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


def test_missing_client_certificate_is_reported(tunnel: tuple[str, int], tls: list[str]) -> None:
    result = gearmanctl("submit", "task", "data", *tls[:2], at=tunnel)
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert str(tunnel[1]) in result.error


def test_tls_to_a_plain_server_is_reported(gearmand: Gearmand, tls: list[str]) -> None:
    result = gearmanctl("submit", "task", "data", *tls, at=("localhost", free_port()))
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert result.error


def test_plain_connection_to_a_tls_server_is_reported(tunnel: tuple[str, int]) -> None:
    result = gearmanctl("status", at=tunnel)
    assert (result.status, result.output) == (NO_SERVER, b"")
    assert result.error


@pytest.mark.parametrize("option", ["--tls-ca", "--tls-cert", "--tls-key"])
def test_missing_or_wrong_tls_file_is_reported(tls: list[str], tmp_path: Path, option: str) -> None:
    wrong = tmp_path / "wrong"
    for text, wrong_with_it in (
        (None, "can't be read: No such file or directory"),
        ("this is no certificate", "has no "),
    ):
        if text is not None:
            wrong.write_text(text)
        options = [*tls]
        options[options.index(option) + 1] = str(wrong)
        for words in (("submit", "task", "data"), ("status",)):
            result = gearmanctl(*words, *options, at=NOWHERE)
            assert (result.status, result.output) == (USAGE, b"")
            assert f"{option} '{wrong}' {wrong_with_it}" in result.error


def test_encrypted_key_is_refused_without_a_prompt(
    certificates: Path, tls: list[str], tmp_path: Path
) -> None:
    """gearmanctl never asks for a passphrase, not even on a terminal."""
    key = encrypted(certificates / "client.key", tmp_path)
    result = gearmanctl("status", *tls[:-1], str(key), at=NOWHERE)
    assert (result.status, result.output) == (USAGE, b"")
    assert result.error == (
        f"the key in --tls-key '{key}' is encrypted, and its passphrase is not asked for"
    )


def test_key_without_certificate_is_a_usage_error(tls: list[str]) -> None:
    result = gearmanctl("status", *tls[4:], at=NOWHERE)
    assert (result.status, result.error) == (USAGE, "--tls-key needs --tls-cert")
