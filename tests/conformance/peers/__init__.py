"""Clients, workers and servers of Gearman, ours and others: how to start and install them.

A client is called with HOST:PORT, a function and a payload. It reads the payload from standard
input if the argument is `-`. It submits one foreground job and writes the result to standard
output. If the job fails, it writes the error to standard error, and its exit status is not 0. Some
libraries have no time limit, so a test that starts one must set its own.

A worker is called with HOST:PORT, and serves until a signal ends it: `reverse` (the payload back to
front), `fail` (fails), `slow` (the payload after half a second), and `progress` (WORK_STATUS 1/2,
WORK_DATA `half`, then the payload), as far as the library supports them.

This module can be imported without the peers. The environment tells where they are installed:

* GEARMAN_PEERS_PYTHON: the Python that has gear, pygearman and aiogear; the default is this one.
* GEARMAN_PEERS_NODE_PATH: the directory `node_modules` that has the npm packages.
* GEARMAN_PEERS_PERL_SERVER: the directory `usr` of Perl's server where its package was unpacked
  (`dpkg -x`). If it is installed, it is a second `gearmand` on the PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import SBIN

__all__ = ["CLIENTS", "SERVERS", "WORKERS", "Peer", "environment"]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

PYTHON = os.environ.get("GEARMAN_PEERS_PYTHON") or sys.executable
NODE_PATH = os.environ.get("GEARMAN_PEERS_NODE_PATH") or os.environ.get("NODE_PATH", "")
PERL_SERVER = os.environ.get("GEARMAN_PEERS_PERL_SERVER") or "/usr"

GEARMANCTL = (sys.executable, "-c", "from gearman_sync.cli import main; main()")
# Perl's server has the same name, and users other than root find it first in their PATH.
GEARMAND = shutil.which("gearmand", path=SBIN) or "gearmand"
PERL_GEARMAND = ("perl", f"-I{PERL_SERVER}/share/perl5", f"{PERL_SERVER}/bin/gearmand")

# Seconds that a peer may take to print its version.
PATIENCE = 30.0


def environment() -> dict[str, str]:
    """Return the environment for starting peers."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "NODE_PATH": NODE_PATH, "PYTHONPATH": os.pathsep.join(paths)}


@dataclass(frozen=True)
class Peer:
    """A peer: the command that starts it, and the packages that it needs."""

    name: str
    argv: tuple[str, ...]
    """With {address}, {port}, {function}, and {payload} or {payloads} where these are put in."""
    version_argv: tuple[str, ...]
    """It exits with 0, and prints the version, if all that the peer needs is installed."""
    install: str
    note: str = ""
    """What is odd about it, and to be expected."""

    def version(self) -> str | None:
        """Return the installed version, or None if the peer cannot be started."""
        try:
            process = subprocess.run(
                self.version_argv,
                env=environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return process.stdout.strip() or None if process.returncode == 0 else None


def script(name: str) -> str:
    return str(HERE / name)


def pypi_version(name: str) -> tuple[str, ...]:
    return (PYTHON, "-c", f"from importlib import metadata; print(metadata.version('{name}'))")


def npm_version(name: str) -> tuple[str, ...]:
    return ("node", "-p", f"require('{name}/package.json').version")


def our_version(*needs: str) -> tuple[str, ...]:
    needed = ", ".join(("gearman_proto", *needs))
    return (sys.executable, "-c", f"import {needed}; print(gearman_proto.__version__)")


JOB = ("{address}", "{function}", "{payload}")
# Several payloads, submitted at once.
JOBS = ("{address}", "{function}", "{payloads}")
# `gearman` cannot print its version.
TOOLS_VERSION = (
    *("sh", "-c"),
    "command -v gearman >&2 && { dpkg-query -W -f '${Version}' gearman-tools || echo unknown; }",
)
PHP_VERSION = ("php", "-r", "echo phpversion('gearman') ?: exit(1);")
PERL_VERSION = ("perl", "-MGearman::Client", "-e", "print Gearman::Client->VERSION")
PERL_SERVER_VERSION = (*PERL_GEARMAND, "--version")

CLIENTS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            "libgearman",
            ("sh", script("libgearman_client.sh"), *JOB),
            TOOLS_VERSION,
            "apt install gearman-tools",
            note="WORK_STATUS is a line of its output, after the result. Exceptions have status 0.",
        ),
        Peer(
            "php",
            ("php", script("php_client.php"), *JOBS),
            PHP_VERSION,
            "apt install php-cli php-gearman",
            note="It refuses to submit an empty payload.",
        ),
        Peer(
            "perl",
            ("perl", script("perl_client.pl"), *JOBS),
            PERL_VERSION,
            "apt install libgearman-client-perl",
        ),
        Peer(
            "npm-gearman",
            ("node", script("gearman_client.js"), *JOB),
            npm_version("gearman"),
            "npm install gearman@2.1.0",
        ),
        Peer(
            "gearmanode",
            ("node", script("gearmanode_client.js"), *JOB),
            npm_version("gearmanode"),
            "npm install gearmanode@0.9.2",
            note="With a current winston it warns of each line of its log on standard error.",
        ),
        Peer(
            "node-gearman",
            ("node", script("node_gearman_client.js"), *JOB),
            npm_version("node-gearman"),
            "npm install node-gearman@0.2.2",
        ),
        Peer(
            "abraxas",
            ("node", script("abraxas_client.js"), *JOB),
            npm_version("abraxas"),
            "npm install abraxas@2.1.10",
        ),
        Peer(
            "gear",
            (PYTHON, script("gear_client.py"), *JOBS),
            pypi_version("gear"),
            "pip install gear==0.16.0",
        ),
        Peer(
            "pygearman",
            (PYTHON, script("pygearman_client.py"), *JOBS),
            pypi_version("pygearman"),
            "pip install pygearman==0.2.6",
        ),
        Peer(
            "aiogear",
            (PYTHON, script("aiogear_client.py"), *JOB),
            pypi_version("aiogear"),
            "pip install aiogear==0.2.6",
            note="After a result that is not text it waits for ever, without a connection.",
        ),
        Peer(
            "gearman_sync",
            (sys.executable, script("gearman_sync_client.py"), *JOBS),
            our_version("gearman_sync"),
            "pip install .",
        ),
        *(
            Peer(
                f"gearman_anyio-{backend}",
                (sys.executable, script("gearman_anyio_client.py"), backend, *JOBS),
                our_version("gearman_anyio", backend),
                "pip install '.[trio]'",
            )
            for backend in ("trio", "asyncio")
        ),
        Peer(
            "gearmanctl",
            (
                *(*GEARMANCTL, "submit", "--server", "{address}"),
                *("--", "{function}", "{payload}"),
            ),
            our_version("gearman_sync", "rich", "typer"),
            "pip install '.[cli]'",
        ),
    )
}

WORKERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            "libgearman",
            ("sh", script("libgearman_worker.sh"), "{address}"),
            TOOLS_VERSION,
            "apt install gearman-tools",
        ),
        Peer(
            "php",
            ("php", script("php_worker.php"), "{address}"),
            PHP_VERSION,
            "apt install php-cli php-gearman",
        ),
        Peer(
            "perl",
            ("perl", script("perl_worker.pl"), "{address}"),
            PERL_VERSION,
            "apt install libgearman-client-perl",
            note="An empty result, or 0, is a WORK_COMPLETE without its second argument: gearmand"
            " closes the connection, and gives it the job again, without end.",
        ),
        Peer(
            "npm-gearman",
            ("node", script("gearman_worker.js"), "{address}"),
            npm_version("gearman"),
            "npm install gearman@2.1.0",
        ),
        Peer(
            "gearmanode",
            ("node", script("gearmanode_worker.js"), "{address}"),
            npm_version("gearmanode"),
            "npm install gearmanode@0.9.2",
            note="It sends results as text, with U+FFFD for what is not UTF-8; and it loses a"
            " packet of which less than 12 bytes come by themselves.",
        ),
        Peer(
            "node-gearman",
            ("node", script("node_gearman_worker.js"), "{address}"),
            npm_version("node-gearman"),
            "npm install node-gearman@0.2.2",
            note="`progress` has no WORK_STATUS. It takes several jobs at once.",
        ),
        Peer(
            "abraxas",
            ("node", script("abraxas_worker.js"), "{address}"),
            npm_version("abraxas"),
            "npm install abraxas@2.1.10",
            note="`progress` has WORK_STATUS 50/100, and no WORK_DATA. It ends at gearmand after"
            " the second job that fails.",
        ),
        Peer(
            "gear",
            (PYTHON, script("gear_worker.py"), "{address}"),
            pypi_version("gear"),
            "pip install gear==0.16.0",
        ),
        Peer(
            "pygearman",
            (PYTHON, script("pygearman_worker.py"), "{address}"),
            pypi_version("pygearman"),
            "pip install pygearman==0.2.6",
        ),
        Peer(
            "aiogear",
            (PYTHON, script("aiogear_worker.py"), "{address}"),
            pypi_version("aiogear"),
            "pip install aiogear==0.2.6",
            note="After a payload that is not text it ends.",
        ),
        Peer(
            "gearman_sync",
            (sys.executable, script("gearman_sync_worker.py"), "{address}"),
            our_version("gearman_sync"),
            "pip install .",
        ),
        *(
            Peer(
                f"gearman_anyio-{backend}",
                (sys.executable, script("gearman_anyio_worker.py"), backend, "{address}"),
                our_version("gearman_anyio", backend),
                "pip install '.[trio]'",
            )
            for backend in ("trio", "asyncio")
        ),
        Peer(
            "gearmanctl",
            (sys.executable, script("gearmanctl_worker.py"), "{address}"),
            our_version("gearman_sync", "rich", "typer"),
            "pip install '.[cli]'",
        ),
    )
}

SERVERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(
            "gearmand",
            (GEARMAND, "--listen", "{host}", "--port", "{port}", "--log-file", "stderr"),
            (GEARMAND, "--version"),
            "apt install gearman-job-server",
        ),
        Peer(
            "perl",
            (*PERL_GEARMAND, "--listen", "{host}", "--port", "{port}"),
            PERL_SERVER_VERSION,
            "apt install gearman-server, or where that would replace gearmand: apt install"
            " libgearman-client-perl libdanga-socket-perl; apt download gearman-server; dpkg -x",
            note="Its own worker ends when it is told that there is no WORK_DATA.",
        ),
        Peer(
            "gear",
            (PYTHON, script("gear_server.py"), "{address}"),
            pypi_version("gear"),
            "pip install gear==0.16.0",
            note="It does not answer these, so that most workers, and the clients php, perl and"
            " abraxas, wait for ever.",
        ),
        Peer(
            "abraxas",
            ("node", script("abraxas_server.js"), "{address}"),
            npm_version("abraxas"),
            "npm install abraxas@2.1.10",
            note="It ends at a GRAB_JOB_ALL, and at a WORK_EXCEPTION for a job that has a unique.",
        ),
        Peer(
            "gearmanctl",
            (*GEARMANCTL, "serve", "--host", "{host}", "--port", "{port}"),
            our_version("gearman_sync", "rich", "typer"),
            "pip install '.[cli]'",
        ),
    )
}
