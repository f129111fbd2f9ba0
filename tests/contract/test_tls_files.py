"""Invalid key and certificate files. The error names the file and the cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    (directory / "text").write_text("a certificate, or a key")
    (directory / "cut short").write_text(certificate[:200])
    (directory / "both").write_text(certificate + (directory / "server.key").read_text())
    encrypted(directory / "client.key", directory)
    return directory


async def said(kit: Kit, kind: str, directory: Path, files: dict[str, str]) -> OSError:
    """Return the error that a client, worker or admin client raises for these files."""
    paths = {key: str(directory / name) for key, name in files.items()}
    with pytest.raises(OSError) as caught:
        await getattr(kit, kind)({"host": "localhost", **paths})
    return caught.value


@pytest.mark.parametrize("kind", ["client", "make_worker", "admin_client"])
@pytest.mark.parametrize("key", KEYS)
async def test_missing_file_raises(kit: Kit, directory: Path, key: str, kind: str) -> None:
    good = {"certfile": "client.pem"} if key == "keyfile" else {}
    error = await said(kit, kind, directory, {**good, key: "none"})
    assert isinstance(error, FileNotFoundError)
    assert error.strerror == f"{key} '{directory}/none' can't be read: No such file or directory"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"ca_certs": "text"}, "ca_certs '{}/text' has no certificate in PEM form"),
        ({"ca_certs": "cut short"}, "ca_certs '{}/cut short' has no certificate in PEM form"),
        ({"certfile": "empty"}, "certfile '{}/empty' has no certificate in PEM form"),
        ({"certfile": "client.pem"}, "certfile '{}/client.pem' has no private key in PEM form"),
        ({"keyfile": "client.csr"}, "keyfile '{}/client.csr' has no private key in PEM form"),
        ({"certfile": "both"}, "the key in certfile '{}/both' is not that of the certificate in "),
        ({"keyfile": "server.key"}, "the key in keyfile '{}/server.key' is not that of the "),
        # A prompt for the passphrase would block the program.
        ({"keyfile": "encrypted.key"}, "the key in keyfile '{}/encrypted.key' is encrypted, and "),
    ],
    ids=str,
)
async def test_file_without_its_key_or_certificate_raises(
    kit: Kit, directory: Path, files: dict[str, str], message: str
) -> None:
    good = {"certfile": "client.pem"} if "keyfile" in files else {}
    error = await said(kit, "client", directory, {**good, **files})
    assert str(error).startswith(message.format(directory))
