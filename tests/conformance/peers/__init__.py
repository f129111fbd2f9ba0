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
class Package:
    """What a peer needs."""

    version_argv: tuple[str, ...]
    """It exits with 0, and prints the version, if the package is installed."""
    install: str


@dataclass(frozen=True)
class Peer:
    """A peer: the command that starts it, and the packages that it needs."""

    argv: tuple[str, ...]
    """With {address}, {port}, {function}, and {payload} or {payloads} where these are put in."""
    package: Package
    label: str = ""
    """The name in the results, if it is not the key."""

    @property
    def install(self) -> str:
        """How to install it."""
        return self.package.install

    def version(self) -> str | None:
        """Return the installed version, or None if the peer cannot be started."""
        try:
            process = subprocess.run(
                self.package.version_argv,
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


def pypi(requirement: str) -> Package:
    name = requirement.partition("==")[0]
    code = f"from importlib import metadata; print(metadata.version('{name}'))"
    return Package((PYTHON, "-c", code), f"pip install {requirement}")


def npm(requirement: str) -> Package:
    name = requirement.partition("@")[0]
    code = f"require('{name}/package.json').version"
    return Package(("node", "-p", code), f"npm install {requirement}")


def ours(install: str, *needs: str) -> Package:
    code = f"import {', '.join(('gearman_proto', *needs))}; print(gearman_proto.__version__)"
    return Package((sys.executable, "-c", code), install)


def script(program: str, name: str, *words: str) -> tuple[str, ...]:
    return (program, str(HERE / name), *words)


JOB = ("{address}", "{function}", "{payload}")
# Several payloads, submitted at once.
JOBS = ("{address}", "{function}", "{payloads}")

# It has faults of its own, which are not those of the library.
PROGRAM = "`gearman` (libgearman)"
# `gearman` cannot print its version.
TOOLS = Package(
    (
        *("sh", "-c"),
        "command -v gearman >&2 && { dpkg-query -Wf '${Version}' gearman-tools || echo unknown; }",
    ),
    "apt install gearman-tools",
)
PHP = Package(
    ("php", "-r", "echo phpversion('gearman') ?: exit(1);"), "apt install php-cli php-gearman"
)
PERL = Package(
    ("perl", "-MGearman::Client", "-e", "print Gearman::Client->VERSION"),
    "apt install libgearman-client-perl",
)
NPM_GEARMAN = npm("gearman@2.1.0")
GEARMANODE = npm("gearmanode@0.9.2")
NODE_GEARMAN = npm("node-gearman@0.2.2")
ABRAXAS = npm("abraxas@2.1.10")
GEAR = pypi("gear==0.16.0")
PYGEARMAN = pypi("pygearman==0.2.6")
AIOGEAR = pypi("aiogear==0.2.6")
SYNC = ours("pip install .", "gearman_sync")
ANYIO = {
    backend: ours("pip install '.[trio]'", "gearman_anyio", backend)
    for backend in ("trio", "asyncio")
}
CLI = ours("pip install '.[cli]'", "gearman_sync", "rich", "typer")

CLIENTS: dict[str, Peer] = {
    # WORK_STATUS is a line of its output, after the result. Exceptions have status 0.
    "libgearman": Peer(script("sh", "libgearman_client.sh", *JOB), TOOLS, PROGRAM),
    # It refuses to submit an empty payload.
    "php": Peer(script("php", "php_client.php", *JOBS), PHP),
    "perl": Peer(script("perl", "perl_client.pl", *JOBS), PERL),
    "npm-gearman": Peer(script("node", "gearman_client.js", *JOB), NPM_GEARMAN),
    # With a current winston it warns of each line of its log on standard error.
    "gearmanode": Peer(script("node", "gearmanode_client.js", *JOB), GEARMANODE),
    "node-gearman": Peer(script("node", "node_gearman_client.js", *JOB), NODE_GEARMAN),
    "abraxas": Peer(script("node", "abraxas_client.js", *JOB), ABRAXAS),
    "gear": Peer(script(PYTHON, "gear_client.py", *JOBS), GEAR),
    "pygearman": Peer(script(PYTHON, "sync_client.py", "gearman", *JOBS), PYGEARMAN),
    # After a result that is not text it waits for ever, without a connection.
    "aiogear": Peer(script(PYTHON, "aiogear_client.py", *JOB), AIOGEAR),
    "gearman_sync": Peer(script(sys.executable, "sync_client.py", "gearman_sync", *JOBS), SYNC),
    **{
        f"gearman_anyio-{backend}": Peer(
            script(sys.executable, "gearman_anyio_client.py", backend, *JOBS), package
        )
        for backend, package in ANYIO.items()
    },
    "gearmanctl": Peer(
        (*GEARMANCTL, "submit", "--server", "{address}", "--", "{function}", "{payload}"), CLI
    ),
}

WORKERS: dict[str, Peer] = {
    "libgearman": Peer(script("sh", "libgearman_worker.sh", "{address}"), TOOLS, PROGRAM),
    "php": Peer(script("php", "php_worker.php", "{address}"), PHP),
    # An empty result, or 0, is a WORK_COMPLETE without its second argument: gearmand closes the
    # connection, and gives it the job again, without end.
    "perl": Peer(script("perl", "perl_worker.pl", "{address}"), PERL),
    "npm-gearman": Peer(script("node", "gearman_worker.js", "{address}"), NPM_GEARMAN),
    # It sends results as text, with U+FFFD for what is not UTF-8; and it loses a packet of which
    # less than 12 bytes come by themselves.
    "gearmanode": Peer(script("node", "gearmanode_worker.js", "{address}"), GEARMANODE),
    # `progress` has no WORK_STATUS. It takes several jobs at once.
    "node-gearman": Peer(script("node", "node_gearman_worker.js", "{address}"), NODE_GEARMAN),
    # `progress` has WORK_STATUS 50/100, and no WORK_DATA. It ends at gearmand after the second job
    # that fails.
    "abraxas": Peer(script("node", "abraxas_worker.js", "{address}"), ABRAXAS),
    "gear": Peer(script(PYTHON, "gear_worker.py", "{address}"), GEAR),
    "pygearman": Peer(script(PYTHON, "sync_worker.py", "gearman", "{address}"), PYGEARMAN),
    # After a payload that is not text it ends.
    "aiogear": Peer(script(PYTHON, "aiogear_worker.py", "{address}"), AIOGEAR),
    "gearman_sync": Peer(
        script(sys.executable, "sync_worker.py", "gearman_sync", "{address}"), SYNC
    ),
    **{
        f"gearman_anyio-{backend}": Peer(
            script(sys.executable, "gearman_anyio_worker.py", backend, "{address}"), package
        )
        for backend, package in ANYIO.items()
    },
    "gearmanctl": Peer(script(sys.executable, "gearmanctl_worker.py", "{address}"), CLI),
}

SERVERS: dict[str, Peer] = {
    "gearmand": Peer(
        (GEARMAND, "--listen", "{host}", "--port", "{port}", "--log-file", "stderr"),
        Package((GEARMAND, "--version"), "apt install gearman-job-server"),
    ),
    # Its own worker ends when it is told that there is no WORK_DATA.
    "perl": Peer(
        (*PERL_GEARMAND, "--listen", "{host}", "--port", "{port}"),
        Package(
            (*PERL_GEARMAND, "--version"),
            "apt install gearman-server, or where that would replace gearmand: apt install"
            " libgearman-client-perl libdanga-socket-perl; apt download gearman-server; dpkg -x",
        ),
    ),
    # It does not answer these, so that most workers, and the clients php, perl and abraxas, wait
    # for ever.
    "gear": Peer(script(PYTHON, "gear_server.py", "{address}"), GEAR),
    # It ends at a GRAB_JOB_ALL, and at a WORK_EXCEPTION for a job that has a unique.
    "abraxas": Peer(script("node", "abraxas_server.js", "{address}"), ABRAXAS),
    "gearmanctl": Peer((*GEARMANCTL, "serve", "--host", "{host}", "--port", "{port}"), CLI),
}
