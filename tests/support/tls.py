"""TLS: certificates, contexts, and stunnel in front of a server."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING, Any

from .programs import PortProgram, free_port, require

if TYPE_CHECKING:
    from pathlib import Path

    from .servers import Administered


def make_certificates(directory: Path) -> Path:
    """Make a CA, and keys and certificates of a server and a client."""
    openssl = require("openssl")

    def run(*args: str) -> None:
        subprocess.run([openssl, *args], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run(
        *("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2"),
        *("-subj", "/CN=gearman CA", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    (directory / "ext").write_text(
        "subjectAltName=DNS:localhost,IP:127.0.0.1\n"
        "basicConstraints=CA:FALSE\n"
        "subjectKeyIdentifier=hash\n"
        "authorityKeyIdentifier=keyid\n"
    )
    for name in ("server", "client"):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", f"{name}.pem"),
        )
    return directory


def encrypted(key: Path, directory: Path) -> Path:
    """Write the key, encrypted with a passphrase, to a file in `directory`."""
    made = directory / "encrypted.key"
    command = [require("openssl"), "pkey", "-in", str(key), "-aes128", "-passout", "pass:secret"]
    subprocess.run([*command, "-out", str(made)], check=True, capture_output=True)
    return made


class Stunnel(PortProgram):
    """A TLS proxy for a server that requires client certificates of `ca`."""

    def __init__(self, directory: Path, server: Administered) -> None:
        port = free_port()
        host, its_port = server.address
        config = directory / f"stunnel-{port}.conf"
        config.write_text(
            "foreground = yes\npid =\n[gearman]\n"
            f"accept = 127.0.0.1:{port}\nconnect = {host}:{its_port}\n"
            f"cert = {directory / 'server.pem'}\nkey = {directory / 'server.key'}\n"
            f"CAfile = {directory / 'ca.pem'}\nverifyChain = yes\nrequireCert = yes\n"
        )
        super().__init__("127.0.0.1", port, require("stunnel4"), str(config))
        self.start()


def client_keys(certificates: Path) -> dict[str, Any]:
    """Return the TLS entries of a host's dict for an accepted client."""
    return {
        "keyfile": str(certificates / "client.key"),
        "certfile": str(certificates / "client.pem"),
        "ca_certs": str(certificates / "ca.pem"),
    }


def client_context(certificates: Path) -> ssl.SSLContext:
    """Return the context of an accepted client."""
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return context


def server_context(certificates: Path) -> ssl.SSLContext:
    """Return the context of a server that accepts this client."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates / "ca.pem")
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    return context
