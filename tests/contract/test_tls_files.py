"""Invalid key and certificate files. The error names the file and the cause."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import encrypted, make_certificates

if TYPE_CHECKING:
    from pathlib import Path

    from .kit import Kit

KEYS = ("ca_certs", "certfile", "keyfile")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of invalid files, with valid ones for `client`."""
    directory = make_certificates(tmp_path_factory.mktemp("files"))
    certificate = (directory / "client.pem").read_text()
    (directory / "empty").touch()
    (directory / "a directory").mkdir()
    (directory / "text").write_text("a certificate, or a key")
    (directory / "cut short").write_text(certificate[:200])
    (directory / "both").write_text(certificate + (directory / "server.key").read_text())
    encrypted(directory / "client.key", directory)
    return directory


async def said(kit: Kit, kind: str, directory: Path, files: dict[str, str]) -> OSError:
    """Return the error that a client, worker or admin client raises for these files."""
    paths = {key: str(directory / name) for key, name in files.items()}
    makers: dict[str, Any] = {
        "client": kit.client, "worker": kit.make_worker, "admin": kit.admin_client,
    }  # fmt: skip
    with pytest.raises(OSError) as caught:
        await makers[kind]({"host": "localhost", **paths})
    return caught.value


@pytest.mark.parametrize("kind", ["client", "worker", "admin"])
@pytest.mark.parametrize("key", KEYS)
async def test_missing_file_or_directory_raises(
    kit: Kit, directory: Path, key: str, kind: str
) -> None:
    good = {"certfile": "client.pem"} if key == "keyfile" else {}
    error = await said(kit, kind, directory, {**good, key: "none"})
    assert isinstance(error, FileNotFoundError)
    assert error.strerror == f"{key} '{directory}/none' can't be read: No such file or directory"
    error = await said(kit, kind, directory, {**good, key: "a directory"})
    assert isinstance(error, IsADirectoryError)
    assert error.strerror == f"{key} '{directory}/a directory' can't be read: Is a directory"


@pytest.mark.parametrize("name", ["empty", "text", "cut short", "client.csr"])
@pytest.mark.parametrize("key", KEYS)
async def test_file_without_a_key_or_certificate_raises(
    kit: Kit, directory: Path, key: str, name: str
) -> None:
    good = {"certfile": "client.pem", "keyfile": "client.key", "ca_certs": "ca.pem"}
    error = await said(kit, "client", directory, {**good, key: name})
    assert isinstance(error, ssl.SSLError)
    what = "private key" if key == "keyfile" else "certificate"
    assert str(error) == f"{key} '{directory}/{name}' has no {what} in PEM form"


async def test_key_of_another_certificate_raises(kit: Kit, directory: Path) -> None:
    files = {"certfile": "client.pem", "keyfile": "server.key"}
    error = await said(kit, "client", directory, files)
    assert isinstance(error, ssl.SSLError)
    assert str(error) == (
        f"the key in keyfile '{directory}/server.key' is not that of the certificate in "
        f"certfile '{directory}/client.pem'"
    )
    error = await said(kit, "client", directory, {"certfile": "both"})
    assert str(error).startswith(f"the key in certfile '{directory}/both' is not that of")


async def test_certificate_without_a_key_raises(kit: Kit, directory: Path) -> None:
    error = await said(kit, "client", directory, {"certfile": "client.pem"})
    assert isinstance(error, ssl.SSLError)
    assert str(error) == f"certfile '{directory}/client.pem' has no private key in PEM form"


async def test_encrypted_key_raises(kit: Kit, directory: Path) -> None:
    """Raise an error instead of prompting for the passphrase, which would block the program."""
    files = {"certfile": "client.pem", "keyfile": "encrypted.key"}
    assert str(await said(kit, "client", directory, files)) == (
        f"the key in keyfile '{directory}/encrypted.key' is encrypted, and its passphrase is not "
        "asked for; an ssl_context can be made with it"
    )
