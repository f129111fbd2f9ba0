"""Clients, workers and servers of Gearman, ours and others: how each is started and installed.

A client is called with HOST:PORT, a function and a payload, which is read from standard input where
it is `-`. It submits one foreground job and writes the result to standard output; where there is
none it says so on standard error, and its exit status is not 0. Some libraries have no time limit,
so a test that starts one has to have it.

A worker is called with HOST:PORT, and serves until a signal ends it: `reverse` (the payload back to
front), `fail` (fails), `slow` (the payload after half a second), and `progress` (WORK_STATUS 1/2,
WORK_DATA `half`, then the payload), as far as the library has that.

Nothing of it is needed to import this module. The environment says where it is installed:

* GEARMAN_PEERS_PYTHON: the Python that has gear, pygearman and aiogear; without it this one.
* GEARMAN_PEERS_NODE_PATH: the directory `node_modules` that has the npm packages.
* GEARMAN_PEERS_PERL_SERVER: the directory `usr` of Perl's server where its package was unpacked
  (`dpkg -x`). Installed, it is another `gearmand` on the PATH, which some take for the first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CLIENTS", "NOT_RUNNABLE", "SERVERS", "WORKERS", "Client", "Peer", "Server", "Worker"]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

PYTHON = os.environ.get("GEARMAN_PEERS_PYTHON") or sys.executable
NODE_PATH = os.environ.get("GEARMAN_PEERS_NODE_PATH") or os.environ.get("NODE_PATH", "")
PERL_SERVER = os.environ.get("GEARMAN_PEERS_PERL_SERVER") or "/usr"

GEARMANCTL = (sys.executable, "-c", "from gearman_sync.cli import main; main()")
# Where Perl's server is installed it has the same name, and is found first by who is not root.
GEARMAND = shutil.which("gearmand", path="/usr/sbin:/usr/local/sbin") or "gearmand"
PERL_GEARMAND = ("perl", f"-I{PERL_SERVER}/share/perl5", f"{PERL_SERVER}/bin/gearmand")

# How long a peer may take to say its version.
PATIENCE = 30.0


def environment() -> dict[str, str]:
    """The environment that peers are started in."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "NODE_PATH": NODE_PATH, "PYTHONPATH": os.pathsep.join(paths)}


@dataclass(frozen=True)
class Peer:
    """How a peer is started, and what has to be installed for it."""

    name: str
    argv: tuple[str, ...]
    """With {address}, {host}, {port}, {function} and {payload} where these are put in."""
    version_argv: tuple[str, ...]
    """It exits with 0, and prints the version, if all that the peer needs is installed."""
    install: str
    cannot: tuple[str, ...] = ()
    """Payloads and results that it does not carry: "empty"; "binary", not UTF-8 or with NULs."""
    note: str = ""
    """What is odd about it, and to be expected."""

    def command(self, address: str, function: str = "", payload: str = "") -> list[str]:
        """The command for a server at HOST:PORT: to serve there, if the peer is a server."""
        host, _, port = address.rpartition(":")
        return [
            word.format(address=address, host=host, port=port, function=function, payload=payload)
            for word in self.argv
        ]

    def version(self) -> str | None:
        """What is installed, or None where the peer can't be started."""
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

    def installed(self) -> bool:
        """Whether the peer can be started."""
        return self.version() is not None


@dataclass(frozen=True)
class Client(Peer):
    """A client, and what of the protocol its library has."""

    joins_data: bool = False
    """Whether what came as WORK_DATA is a part of the result."""
    asks_for_exceptions: bool = True
    """Whether it asks the server for WORK_EXCEPTION; and it may wait for the answer."""


@dataclass(frozen=True)
class Worker(Peer):
    """A worker, and what of the protocol its library has."""

    functions: tuple[str, ...] = ("reverse", "fail", "progress", "slow")


@dataclass(frozen=True)
class Server(Peer):
    """A server, and what of the protocol it has not."""

    lacks: tuple[str, ...] = ()
    """Commands that it answers with an error or not at all; "admin" are those in text."""


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
# `gearman` can't say its version.
TOOLS_VERSION = (
    *("sh", "-c"),
    "command -v gearman >&2 && { dpkg-query -W -f '${Version}' gearman-tools || echo unknown; }",
)
PHP_VERSION = ("php", "-r", "echo phpversion('gearman') ?: exit(1);")
PERL_VERSION = ("perl", "-MGearman::Client", "-e", "print Gearman::Client->VERSION")
PERL_SERVER_VERSION = (*PERL_GEARMAND, "--version")

CLIENTS: dict[str, Client] = {
    client.name: client
    for client in (
        Client(
            "libgearman",
            ("sh", script("libgearman_client.sh"), *JOB),
            TOOLS_VERSION,
            "apt install gearman-tools",
            joins_data=True,
            asks_for_exceptions=False,
            note="WORK_STATUS is a line of its output, after the result. Exceptions have status 0.",
        ),
        Client(
            "php",
            ("php", script("php_client.php"), *JOB),
            PHP_VERSION,
            "apt install php-cli php-gearman",
            cannot=("empty",),
            note="It refuses to submit an empty payload.",
            joins_data=True,
        ),
        Client(
            "perl",
            ("perl", script("perl_client.pl"), *JOB),
            PERL_VERSION,
            "apt install libgearman-client-perl",
        ),
        Client(
            "npm-gearman",
            ("node", script("gearman_client.js"), *JOB),
            npm_version("gearman"),
            "npm install gearman@2.1.0",
        ),
        Client(
            "gearmanode",
            ("node", script("gearmanode_client.js"), *JOB),
            npm_version("gearmanode"),
            "npm install gearmanode@0.9.2",
            note="With a current winston it warns of each line of its log on standard error.",
        ),
        Client(
            "node-gearman",
            ("node", script("node_gearman_client.js"), *JOB),
            npm_version("node-gearman"),
            "npm install node-gearman@0.2.2",
            joins_data=True,
            asks_for_exceptions=False,
        ),
        Client(
            "abraxas",
            ("node", script("abraxas_client.js"), *JOB),
            npm_version("abraxas"),
            "npm install abraxas@2.1.10",
            joins_data=True,
        ),
        Client(
            "gear",
            (PYTHON, script("gear_client.py"), *JOB),
            pypi_version("gear"),
            "pip install gear==0.16.0",
            joins_data=True,
            asks_for_exceptions=False,
        ),
        Client(
            "pygearman",
            (PYTHON, script("pygearman_client.py"), *JOB),
            pypi_version("pygearman"),
            "pip install pygearman==0.2.6",
            asks_for_exceptions=False,
        ),
        Client(
            "aiogear",
            (PYTHON, script("aiogear_client.py"), *JOB),
            pypi_version("aiogear"),
            "pip install aiogear==0.2.6",
            cannot=("binary",),
            note="After a result that is not text it waits for ever, without a connection.",
        ),
        Client(
            "gearman_sync",
            (sys.executable, script("gearman_sync_client.py"), *JOB),
            our_version("gearman_sync"),
            "pip install .",
        ),
        *(
            Client(
                f"gearman_anyio-{backend}",
                (sys.executable, script("gearman_anyio_client.py"), backend, *JOB),
                our_version("gearman_anyio", backend),
                "pip install '.[trio]'",
            )
            for backend in ("trio", "asyncio")
        ),
        Client(
            "gearmanctl",
            (
                *(*GEARMANCTL, "submit", "--server", "{address}"),
                *("--", "{function}", "{payload}"),
            ),
            our_version("gearman_sync", "rich", "typer"),
            "pip install '.[cli]'",
            joins_data=True,
        ),
    )
}

WORKERS: dict[str, Worker] = {
    worker.name: worker
    for worker in (
        Worker(
            "libgearman",
            ("sh", script("libgearman_worker.sh"), "{address}"),
            TOOLS_VERSION,
            "apt install gearman-tools",
            functions=("reverse", "fail", "slow"),
        ),
        Worker(
            "php",
            ("php", script("php_worker.php"), "{address}"),
            PHP_VERSION,
            "apt install php-cli php-gearman",
        ),
        Worker(
            "perl",
            ("perl", script("perl_worker.pl"), "{address}"),
            PERL_VERSION,
            "apt install libgearman-client-perl",
            cannot=("empty",),
            note="An empty result, or 0, is a WORK_COMPLETE without its second argument: gearmand"
            " closes the connection, and gives it the job again, without end.",
        ),
        Worker(
            "npm-gearman",
            ("node", script("gearman_worker.js"), "{address}"),
            npm_version("gearman"),
            "npm install gearman@2.1.0",
        ),
        Worker(
            "gearmanode",
            ("node", script("gearmanode_worker.js"), "{address}"),
            npm_version("gearmanode"),
            "npm install gearmanode@0.9.2",
            cannot=("binary",),
            note="It sends results as text, with U+FFFD for what is not UTF-8; and it loses a"
            " packet of which less than 12 bytes come by themselves.",
        ),
        Worker(
            "node-gearman",
            ("node", script("node_gearman_worker.js"), "{address}"),
            npm_version("node-gearman"),
            "npm install node-gearman@0.2.2",
            note="`progress` has no WORK_STATUS. It takes several jobs at once.",
        ),
        Worker(
            "abraxas",
            ("node", script("abraxas_worker.js"), "{address}"),
            npm_version("abraxas"),
            "npm install abraxas@2.1.10",
            note="`progress` has WORK_STATUS 50/100, and no WORK_DATA. It ends at gearmand after"
            " the second job that fails.",
        ),
        Worker(
            "gear",
            (PYTHON, script("gear_worker.py"), "{address}"),
            pypi_version("gear"),
            "pip install gear==0.16.0",
        ),
        Worker(
            "pygearman",
            (PYTHON, script("pygearman_worker.py"), "{address}"),
            pypi_version("pygearman"),
            "pip install pygearman==0.2.6",
        ),
        Worker(
            "aiogear",
            (PYTHON, script("aiogear_worker.py"), "{address}"),
            pypi_version("aiogear"),
            "pip install aiogear==0.2.6",
            cannot=("binary",),
            note="After a payload that is not text it ends.",
            functions=("reverse", "fail", "slow"),
        ),
        Worker(
            "gearman_sync",
            (sys.executable, script("gearman_sync_worker.py"), "{address}"),
            our_version("gearman_sync"),
            "pip install .",
        ),
        *(
            Worker(
                f"gearman_anyio-{backend}",
                (sys.executable, script("gearman_anyio_worker.py"), backend, "{address}"),
                our_version("gearman_anyio", backend),
                "pip install '.[trio]'",
            )
            for backend in ("trio", "asyncio")
        ),
        Worker(
            "gearmanctl",
            (sys.executable, script("gearmanctl_worker.py"), "{address}"),
            our_version("gearman_sync", "rich", "typer"),
            "pip install '.[cli]'",
            functions=("reverse", "fail", "slow"),
        ),
    )
}

SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Server(
            "gearmand",
            (GEARMAND, "--listen", "{host}", "--port", "{port}", "--log-file", "stderr"),
            (GEARMAND, "--version"),
            "apt install gearman-job-server",
        ),
        Server(
            "perl",
            (*PERL_GEARMAND, "--listen", "{host}", "--port", "{port}"),
            PERL_SERVER_VERSION,
            "apt install gearman-server, or where that would replace gearmand: apt install"
            " libgearman-client-perl libdanga-socket-perl; apt download gearman-server; dpkg -x",
            lacks=("GRAB_JOB_UNIQ", "GRAB_JOB_ALL", "WORK_DATA", "WORK_WARNING"),
            note="Its own worker ends when it is told that there is no WORK_DATA.",
        ),
        Server(
            "gear",
            (PYTHON, script("gear_server.py"), "{address}"),
            pypi_version("gear"),
            "pip install gear==0.16.0",
            lacks=("GRAB_JOB", "GRAB_JOB_ALL", "OPTION_REQ"),
            note="It does not answer these, so that most workers, and the clients php, perl and"
            " abraxas, wait for ever.",
        ),
        Server(
            "abraxas",
            ("node", script("abraxas_server.js"), "{address}"),
            npm_version("abraxas"),
            "npm install abraxas@2.1.10",
            lacks=("GRAB_JOB_ALL", "WORK_FAIL", "WORK_STATUS", "admin"),
            note="It ends at a GRAB_JOB_ALL, and at a WORK_EXCEPTION for a job that has a unique.",
        ),
        Server(
            "gearmanctl",
            (*GEARMANCTL, "serve", "--host", "{host}", "--port", "{port}"),
            our_version("gearman_sync", "rich", "typer"),
            "pip install '.[cli]'",
        ),
    )
}

NOT_RUNNABLE: dict[str, str] = {}
"""Peers that are not in the tables, and why: none, all of them run on node 20 and Python 3.13."""
